import operator
import pickle
import tracemalloc
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from grndist.data.ingest.build import write_store
from grndist.data.moments import (
    MomentsError,
    Standardised,
    Sums,
    bytes_needed,
    effects,
    groups,
    observed_strength,
    part,
    passing,
    shift_of,
    standardised,
    sums,
)
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.perturbations import Perturbations, perturbations_of
from grndist.data.store import Profile, open_store
from grndist.data.view import View, whole
from grndist.genes import NON_TARGETING
from tests.conftest import genes

N_CELLS, N_GENES = 230, 15
LABELS = (NON_TARGETING, "g1", "g3", "g1+g3", "elsewhere", "g3+elsewhere", "g2+g14+g1", "unknown")
TRANSFORMS = ("none", "log1p", "clr")
CELLWISE = ("mean", "deviation", "input_square", "target_square", "second", "cross")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks, the last of them short."""
    monkeypatch.setattr(passing, "CELLS_PER_PIECE", 16)


def screen() -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Counts in which g5 is the same everywhere, g6 never seen, g7 large, and g9 to g14 rare.

    Knock-downs of g1 take two thirds of its counts.
    """
    rng = np.random.default_rng(0)
    label = rng.choice(LABELS, N_CELLS)
    counts = rng.poisson(rng.uniform(0.2, 3, N_GENES), (N_CELLS, N_GENES))
    counts[:, 5], counts[:, 6] = 2, 0
    counts[:, 7] *= 300
    counts[:, 9:] *= rng.random((N_CELLS, N_GENES - 9)) < 0.05
    counts[np.char.find(label, "g1") >= 0, 1] //= 3
    return sparse.csr_matrix(counts), pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(N_CELLS)])


def stored(path: Path, profile: Profile = "train") -> View:
    counts, obs = screen()
    write_store(path, counts, obs, genes(N_GENES), "counts", {}, profile=profile)
    return whole(open_store(path))


def labelled(view: View, labels: tuple[str, ...]) -> View:
    """The same cells with other labels."""
    return replace(view, labels=pd.Categorical(np.random.default_rng(1).choice(labels, view.n_cells)))


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return stored(tmp_path_factory.mktemp("moments") / "s")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> View:
    return stored(tmp_path_factory.mktemp("moments") / "dense", "archive")


def some_of(view: View) -> View:
    """Two thirds of the cells, and genes without g3."""
    rows = np.flatnonzero(np.arange(view.n_cells) % 3 != 1)
    return View(view.store, rows, np.array([0, 1, 2, 5, 6, 7, 9, 14]), 7.5)


def graded(view: View) -> Perturbations:
    found = perturbations_of(view)
    strength = np.random.default_rng(3).uniform(0.2, 0.9, found.members.shape)
    return replace(found, strength=np.where(found.members >= 0, strength, 0))


def seen(view: View, config: ExpressionConfig) -> np.ndarray:
    found = expression(view.store.read_cells(view.rows), view.totals, view, config)
    return np.asarray(found.todense(), dtype=np.float64)


def scores(y: np.ndarray, known: Perturbations) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """z, mean and deviation by the definition, cell by cell, and which cells are controls."""
    control = known.is_control[known.label]
    mean = y[control].mean(0) if control.any() else y.mean(0)
    deviation = np.where(np.ptp(y, axis=0) > 0, y.std(0), 1)
    return (y - mean) / deviation, mean, deviation, control


def defined(y: np.ndarray, known: Perturbations, gain: float) -> dict[str, np.ndarray]:
    """The moments by the definition, cell by cell."""
    z, mean, deviation, _ = scores(y, known)
    target, x = z.copy(), np.zeros((len(y), known.n_inputs))
    x[:, : y.shape[1]] = gain * z
    for cell, label in enumerate(known.label):
        for gene, strength in zip(known.members[label], known.strength[label], strict=True):
            if gene >= 0:
                x[cell, gene] = -strength
                if gene < y.shape[1]:
                    target[cell, gene] = 0
    return {
        "mean": mean, "deviation": deviation, "input_square": (x**2).mean(0),
        "target_square": (target**2).mean(0),
        "second": x.T @ x / len(y), "cross": target.T @ x / len(y),
    }  # fmt: skip


def agree(found: Standardised, wanted: dict[str, np.ndarray], tolerance: float) -> None:
    for name in CELLWISE:
        value = getattr(found, name)
        assert value.shape == wanted[name].shape
        assert np.abs(value - wanted[name]).max() <= tolerance * max(np.abs(wanted[name]).max(), 1), name


def equal(found: Sums, wanted: Sums, tolerance: float = 1e-12) -> None:
    for field in fields(Sums):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        assert (a is None) == (b is None)
        assert a is None or np.abs(a - b).max() <= tolerance * np.abs(b).max(), field.name


@pytest.mark.parametrize("gain", [1.0, 0.05])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("seen_of", [lambda view: view, some_of], ids=["whole", "view"])
def test_moments_are_those_of_the_cells_one_by_one(view: View, seen_of, transform: str, gain: float):
    config, view = ExpressionConfig(transform=transform), seen_of(view)
    known = graded(view)
    wanted = defined(seen(view, config), known, gain)
    agree(standardised(sums(view, config, known, precision="float64"), known, gain), wanted, 3e-7)
    agree(standardised(sums(view, config, known), known, gain, np.float32), wanted, 3e-6)


@pytest.mark.parametrize("labels", [("g1", "g3+g1", "elsewhere"), ("g3",), (NON_TARGETING,), ("unknown",)])
def test_screens_without_controls_or_with_one_label(view: View, labels: tuple[str, ...]):
    view = labelled(view, labels)
    known = graded(view)
    found = sums(view, ExpressionConfig(transform="none"), known, precision="float64")
    agree(standardised(found, known, 0.1), defined(seen(view, ExpressionConfig(transform="none")), known, 0.1), 1e-11)


def test_strengths_and_gains_need_no_second_pass(view: View):
    config, known = ExpressionConfig(transform="none"), perturbations_of(view)
    found = sums(view, config, known, precision="float64")
    for other, gain in ((graded(view), 0.3), (known, 2.0)):
        agree(standardised(found, other, gain), defined(seen(view, config), other, gain), 1e-11)


def test_ignored_unmeasured_genes_have_no_input(view: View):
    config, known = ExpressionConfig(transform="none"), perturbations_of(view, use_unmeasured=False)
    found = standardised(sums(view, config, known, precision="float64"), known, 0.5)
    assert found.second is not None
    assert found.second.shape == (N_GENES, N_GENES)
    agree(found, defined(seen(view, config), known, 0.5), 1e-11)


@pytest.mark.parametrize("shifted", [[], [0, 5, 7], range(N_GENES)], ids=["no gene", "some", "every gene"])
def test_any_shift_gives_the_same(view: View, shifted: list[int]):
    """A gene without one is multiplied value by value."""
    config, known = ExpressionConfig(transform="none"), graded(view)
    shift = np.zeros(N_GENES)
    shift[shifted] = np.random.default_rng(2).integers(1, 9, len(shifted)) / 4
    found = part(view, config, known, range(4), shift, precision="float64")
    agree(standardised(found, known, 0.3), defined(seen(view, config), known, 0.3), 1e-11)
    assert found.product is not None
    assert np.array_equal(found.product, found.product.T)


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_workers_and_profiles_give_the_same(view: View, archive: View, transform: str, products: bool):
    config, known = ExpressionConfig(transform=transform), perturbations_of(view)
    one = sums(view, config, known, products)
    equal(sums(archive, config, known, products), one)
    for workers, scheduler in ((2, "threads"), (3, "synchronous"), (9, "threads")):
        equal(sums(view, config, known, products, workers=workers, scheduler=scheduler), one)


def test_a_scheduler_is_a_function_that_gets_the_tasks(view: View):
    asked = []

    def get(graph, keys, **kwargs):
        asked.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
        return dask.get(graph, keys, **kwargs)

    config, known = ExpressionConfig(), perturbations_of(view)
    with threadpool_limits(torch.get_num_threads() + 1, "blas"):
        equal(sums(view, config, known, workers=2, scheduler=get), sums(view, config, known))
    assert asked == [{torch.get_num_threads()}]


def test_parts_add_up_in_any_grouping(view: View):
    config, known = ExpressionConfig(), perturbations_of(view)
    parts = [part(view, config, known, range(at, at + 1), shift_of(view, config)) for at in range(4)]
    parts = pickle.loads(pickle.dumps(parts))
    left = reduce(operator.add, parts)
    equal(parts[0] + (parts[1] + (parts[2] + parts[3])), left)
    equal((parts[0] + parts[1]) + (parts[2] + parts[3]), left)
    equal(left, sums(view, config, known))
    assert left.n_cells == N_CELLS


def test_sums_of_different_passes_are_not_added(view: View):
    known = perturbations_of(view)
    one = sums(view, ExpressionConfig(), known)
    for other in (
        sums(view, ExpressionConfig(transform="none"), known),
        sums(view, ExpressionConfig(), known, products=False),
    ):
        with pytest.raises(ValueError, match="cannot be added"):
            one + other


def test_without_products_all_but_the_matrices_is_the_same(view: View):
    config, known = ExpressionConfig(), graded(view)
    full, bare = (sums(view, config, known, products) for products in (True, False))
    equal(replace(full, product=None), bare)
    found, wanted = standardised(bare, known, 0.2), standardised(full, known, 0.2)
    assert found.second is found.cross is None
    for name in CELLWISE[:-2]:
        assert np.allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-14)
    assert wanted.second is not None
    assert np.array_equal(wanted.second, wanted.second.T)
    assert np.allclose(wanted.second.diagonal(), wanted.input_square, rtol=1e-9)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_effects_are_differences_of_means_of_the_cells_with_one_perturbed_gene(view: View, transform: str):
    config, known = ExpressionConfig(transform=transform), perturbations_of(view)
    found = effects(sums(view, config, known, products=False), known)
    z, _, deviation, control = scores(seen(view, config), known)
    names = np.array(view.label_names)[known.label]
    assert found.inputs.tolist() == [1, 3, N_GENES]
    assert found.n_controls == control.sum()
    for row, name in enumerate(["g1", "g3", "elsewhere"]):
        cells = names == name
        wanted = z[cells].mean(0)
        wanted[found.inputs[row] : found.inputs[row] + 1] = 0
        assert found.n[row] == cells.sum()
        assert np.allclose(found.z[row], wanted / np.sqrt(1 / cells.sum() + 1 / control.sum()), atol=1e-5)
        assert np.allclose(found.log[row], wanted * deviation, rtol=1e-5, atol=1e-4 if transform == "none" else 1e-6)


@pytest.mark.parametrize("labels", [("g1", "g3"), (NON_TARGETING, "unknown"), (NON_TARGETING, "g1+g3")])
def test_no_effects_without_controls_or_single_perturbations(view: View, labels: tuple[str, ...]):
    view = labelled(view, labels)
    known = perturbations_of(view)
    found = effects(sums(view, ExpressionConfig(), known, products=False), known)
    assert found.z.shape == found.log.shape == (0, N_GENES)
    assert len(found.inputs) == len(found.n) == 0


def test_labels_that_perturb_the_same_gene_are_one_effect(view: View):
    view = labelled(view, (NON_TARGETING, "g1", "g1+non-targeting"))
    known, config = perturbations_of(view), ExpressionConfig(transform="none")
    found = effects(sums(view, config, known, products=False), known)
    z, _, _, control = scores(seen(view, config), known)
    wanted = z[~control].mean(0)
    wanted[1] = 0
    assert found.n.tolist() == [(~control).sum()]
    assert np.allclose(found.z[0], wanted / np.sqrt(1 / (~control).sum() + 1 / control.sum()), atol=1e-5)


def test_observed_strength_is_the_share_of_expression_that_is_lost(view: View):
    config, known = ExpressionConfig(), perturbations_of(view)
    found = observed_strength(sums(view, config, known, products=False), known)
    y, label = seen(view, config), known.label
    control = y[known.is_control[label]].mean(0)
    for row, members in enumerate(known.members):
        for guide, gene in enumerate(members):
            if gene < 0 or gene >= N_GENES:
                assert found[row, guide] == (gene >= 0)
            else:
                wanted = np.clip(1 - y[label == row, gene].mean() / control[gene], 0.1, 1)
                assert np.isclose(found[row, guide], wanted, rtol=1e-5)
    g1 = view.label_names.index("g1")
    assert 0.3 < found[g1, 0] < 0.9
    assert found[view.label_names.index("g3"), 0] == 0.1  # its counts do not fall


@pytest.mark.parametrize("labels", [("g6", NON_TARGETING), ("g1", "g3")])
def test_strength_is_full_where_nothing_can_be_observed(view: View, labels: tuple[str, ...]):
    view = labelled(view, labels)
    known = perturbations_of(view)
    found = observed_strength(sums(view, ExpressionConfig(), known, products=False), known)
    assert np.array_equal(found, known.strength)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ExpressionConfig(cell_minmax=True), r"expression\.cell_minmax is True.*set it to False"),
        (ExpressionConfig(zscore="nonzero"), r"expression\.zscore is 'nonzero'.*set it to 'none'"),
    ],
)
def test_scaled_expression_is_refused(view: View, config: ExpressionConfig, message: str):
    with pytest.raises(MomentsError, match=message):
        sums(view, config, perturbations_of(view))


def crowded(n_genes: int, n_labels: int, n_unmeasured: int, products: bool) -> tuple[Sums, Perturbations]:
    """Sums of ten cells of every label; the last labels perturb unmeasured genes, the first is control."""
    members = np.arange(n_labels)[:, None] % (n_genes + n_unmeasured)
    members[:n_genes, 0] = np.arange(n_labels)[:n_genes] // 2
    members[0] = -1
    known = Perturbations(
        n_genes, tuple(f"far{i}" for i in range(n_unmeasured)), np.zeros(0, dtype=np.int64), members,
        (members >= 0).astype(np.float64), np.arange(n_labels) == 0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    product = np.eye(n_genes) * n_labels * 10 if products else None
    total = rng.normal(size=(n_labels, n_genes))
    square = np.full(n_genes, 10.0 * n_labels)
    own = np.zeros((n_labels, 1))
    return Sums(np.zeros(n_genes), np.full(n_labels, 10), total, square, own, own, product), known


@pytest.mark.parametrize(
    ("n_genes", "n_labels", "n_unmeasured"), [(800, 20, 0), (100, 1200, 1100), (600, 3000, 0), (500, 500, 400)]
)
def test_memory_is_what_was_announced(monkeypatch, n_genes: int, n_labels: int, n_unmeasured: int):
    monkeypatch.setattr(groups, "ROWS", 8)  # what is made of rows at a time is not announced
    standardised(*crowded(3, 3, 0, products=True), 0.2)  # loads what is compiled
    tracemalloc.start()
    found, known = crowded(n_genes, n_labels, n_unmeasured, products=True)
    standardised(found, known, 0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    announced = bytes_needed(n_genes, known.n_inputs, n_labels)
    assert 0.95 * announced < peak < 1.1 * announced


def test_effects_take_no_more_memory_than_their_result(monkeypatch):
    monkeypatch.setattr(groups, "ROWS", 8)
    found, known = crowded(1000, 2000, 0, products=False)
    tracemalloc.start()
    effect = effects(found, known)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(effect.inputs) == 1000
    assert peak < 1.1 * effect.z.nbytes
