"""Objectives of trained runs against the same numbers had another way, and what they refuse."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from scipy import sparse

from grndist.config import Config, ConfigError, validate
from grndist.data.ingest.build import write_store
from grndist.data.normalise import ExpressionConfig
from grndist.data.selection import SelectionConfig, select
from grndist.data.selection.causalbench import CausalBenchConfig
from grndist.data.simulate import SimulationConfig, simulate
from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.evaluation.baselines import absolute_correlation, mean_difference_z
from grndist.evaluation.evaluate import evaluate
from grndist.evaluation.interventional import mean_wasserstein, rank_sum_precision, score_edges
from grndist.evaluation.references import read_reference
from grndist.inference import edges_of_run
from grndist.networks.edges import edge_list
from grndist.networks.stability import agreement_with_others
from grndist.runs import RunConfig, load_run, train_run
from grndist.sweeps.objectives import ObjectiveConfig, baseline, measured, refuse_unfit
from grndist.sweeps.objectives.baselines import _drawn
from grndist.training import checkpoint
from tests.conftest import genes, small_counts

N_GENES, K = 30, 60
SEEDS = (0, 1, 2)
HELD_OUT = {
    "catran": ["cells.split=[train]", "training.validation=0.1"],
    "catran_d": ["cells.split=[train]"],  # it is solved from the moments of all cells
}


def objectives(*trees: dict[str, Any]) -> list[Any]:
    return [TypeAdapter(ObjectiveConfig).validate_python(tree) for tree in trees]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated screen as a store, its network, and three replicates of two models."""
    path = tmp_path_factory.mktemp("objectives")
    config = SimulationConfig(cells=1500, genes=N_GENES, regulators=10, perturbed_share=1.0, difficulty="easy")
    simulation = simulate(config)
    obs = pd.DataFrame({"perturbation": simulation.perturbation}, index=[f"c{i}" for i in range(1500)])
    counts, var = sparse.csr_matrix(simulation.counts), pd.DataFrame(index=list(simulation.genes))
    write_store(path / "s.zarr", counts, obs, var, "counts", {"name": "simulated"})
    simulation.network[["regulator", "target"]].to_csv(path / "network.csv", index=False)
    runs = {"catran": "preset: paper\ntraining: {epochs: 2, genes_per_step: 20}", "catran_d": "preset: catran_d"}
    for kind, tree in runs.items():
        file = path / f"{kind}.yaml"
        file.write_text(f"{tree}\nstore: {path}/s.zarr\nruns: {path}/runs\ntracking: {{kind: none}}\n")
        for seed in SEEDS if kind == "catran" else SEEDS[:1]:
            train_run(load_run(file, [*HELD_OUT[kind], f"name={kind}{seed}", f"training.seed={seed}"]))
    return path


def run_config(folder: Path, *overrides: str, kind: str = "catran") -> RunConfig:
    return load_run(folder / f"{kind}.yaml", [*HELD_OUT[kind], *overrides])


def runs(folder: Path, kind: str = "catran") -> list[str]:
    return [str(path) for path in sorted((folder / "runs").glob(f"{kind}[0-9]"))]


def held_out(folder: Path, split: str = "validation"):
    return select(open_store(folder / "s.zarr"), SelectionConfig.model_validate({"cells": {"split": [split]}}))


def test_everything_at_once_is_what_each_says_alone(folder: Path):
    chosen = objectives(
        {"kind": "reference", "file": folder / "network.csv", "measure": "epr"},
        {"kind": "reference", "file": folder / "network.csv", "lineage": "beeline"},
        {"kind": "wasserstein", "k": K},
        {"kind": "wasserstein", "k": K, "split": "test"},
        {"kind": "rank_sum_precision", "k": 2 * K, "alpha": 0.01},
        {"kind": "stability", "k": K},
        {"kind": "reconstruction"},
    )
    found = measured(chosen, runs(folder))
    lists = [edges_of_run(run) for run in runs(folder)]
    scores = [evaluate(one, read_reference(folder / "network.csv"), None, False, 0).flat() for one in lists]
    validation = [score_edges(held_out(folder), one) for one in lists]
    test = [score_edges(held_out(folder, "test"), one) for one in lists]
    last = [checkpoint.describe(checkpoint.latest(Path(run) / "checkpoints")).looks[-1].loss for run in runs(folder)]
    assert found == {
        "epr": pytest.approx([one["DAZZLE EPR"] for one in scores]),
        "auprc_ratio beeline": pytest.approx([one["BEELINE AUPRC ratio"] for one in scores]),
        f"wasserstein@{K}": pytest.approx([mean_wasserstein(one, K) for one in validation]),
        f"wasserstein@{K} test": pytest.approx([mean_wasserstein(one, K) for one in test]),
        f"rank_sum_precision@{2 * K} p<0.01": [rank_sum_precision(one, 2 * K, 0.01) for one in validation],
        f"stability@{K}": agreement_with_others(lists, K),
        "reconstruction": last,
    }
    assert [objective.name for objective in chosen] == list(found)
    assert len({tuple(values) for values in found.values()}) == len(found)
    assert all(objective.direction == ("min" if name == "reconstruction" else "max") for objective, name in
               zip(chosen, found, strict=True))  # fmt: skip


def test_a_good_network_is_worth_more_than_chance_and_one_run_is_enough(folder: Path):
    chosen = objectives(
        {"kind": "reference", "file": folder / "network.csv"},
        {"kind": "wasserstein", "k": K},
        {"kind": "rank_sum_precision", "k": K},
        {"kind": "stability", "k": K},
    )
    config = run_config(folder, kind="catran_d")
    found = measured(chosen[:3], runs(folder, "catran_d"))
    known = baseline(chosen, config, seed=3)
    assert known == baseline(chosen, config, seed=3) != baseline(chosen, config, seed=4)
    assert list(known) == ["random", "absolute correlation", "mean difference"]
    assert known["random"]["auprc_ratio"] == pytest.approx(1, abs=0.25)
    n_edges = N_GENES * (N_GENES - 1)
    assert known["random"][f"stability@{K}"] == pytest.approx(K / (2 * n_edges - K), abs=0.02)
    assert set(known["random"]) == {*found, f"stability@{K}"}
    for method in ("absolute correlation", "mean difference"):
        assert set(known[method]) == set(found)
    for name, (value,) in found.items():
        assert value > known["random"][name]
        assert known["mean difference"][name] > known["random"][name]


def test_baselines_are_scored_as_networks_are(folder: Path):
    """From the methods' own definitions, through an edge list."""
    chosen = objectives(
        {"kind": "reference", "file": folder / "network.csv"}, {"kind": "wasserstein", "k": K},
    )  # fmt: skip
    config = run_config(folder, "training.validation=null")
    view = select(open_store(folder / "s.zarr"), config)
    names = view.panel.names
    cells = np.concatenate([block.toarray() for _, block in _expression(view)])
    perturbed = sorted(set(view.obs["perturbation"].astype(str)) - {"non-targeting"})
    z = mean_difference_z(_screen(view, cells, perturbed))
    for method, matrix in (("absolute correlation", absolute_correlation([cells])), ("mean difference", z)):
        pairs = [(r, t) for r, t in permutations(names, 2) if method != "mean difference" or r in perturbed]
        at = [(names.index(r), names.index(t)) for r, t in pairs]
        edges = edge_list(*zip(*pairs, strict=True), [matrix[one] for one in at], names)
        reference = evaluate(edges, read_reference(folder / "network.csv"), None, False, 0).flat()
        found = baseline(chosen, config)[method]
        assert found["auprc_ratio"] == pytest.approx(reference["DAZZLE AUPRC ratio"], rel=1e-6)
        tested = score_edges(held_out(folder), edges)
        assert found[f"wasserstein@{K}"] == pytest.approx(mean_wasserstein(tested, K), rel=1e-6)


def _expression(view):
    from grndist.data.normalise import expression

    return [(rows, expression(x, view.totals[rows], view, ExpressionConfig())) for rows, x in view.whole_rows()]


def _screen(view, cells: np.ndarray, perturbed: list[str]):
    from grndist.evaluation.baselines import Screen

    labels = view.obs["perturbation"].astype(str).to_numpy()
    groups = [cells[labels == name] for name in perturbed]
    return Screen(
        cells[labels == "non-targeting"].mean(axis=0, dtype=float), cells.std(axis=0, dtype=float),
        int((labels == "non-targeting").sum()), np.array([view.panel.index[name] for name in perturbed]),
        np.array([own.mean(axis=0, dtype=float) for own in groups]), np.array([len(own) for own in groups]),
        np.cov(cells.T.astype(float), bias=True),
    )  # fmt: skip


def test_random_edges_are_different_pairs_of_the_universe():
    names = [f"g{i}" for i in range(7)]
    every = _drawn(["g1", "g4", "outside"], names, 2 * 6 + 7, seed=0, draw=0).table
    assert len(every.drop_duplicates(["regulator", "target"])) == 19
    assert (every["regulator"] != every["target"]).all()
    firsts = [tuple(_drawn(["g1", "g4"], names, 1, 0, draw).table.iloc[0, :2]) for draw in range(240)]
    counts = pd.Series(firsts).value_counts()
    assert len(counts) == 12
    assert counts.max() < 50  # 20 each


@pytest.mark.parametrize(
    ("tree", "overrides", "replicates", "message"),
    [
        ({"kind": "stability", "k": 10}, [], 1, "compares the replicates .* replicates=1; set replicates=2 or more"),
        ({"kind": "stability", "k": 1000}, [], 2, "a network of 30 genes has 870 edges at most; set k to fewer"),
        ({"kind": "stability", "k": 436}, ["model.edges=undirected"], 2, "has 435 edges at most"),
        ({"kind": "reconstruction"}, ["training.validation=null"], 1, "set training.validation in it"),
        ({"kind": "wasserstein", "k": 9}, ["cells.split=[train,validation]"], 1, r"set cells.split=\[train\]"),
        ({"kind": "wasserstein", "k": 9, "split": "test"}, ["cells.split=[train,test]"], 1, r"set cells.split=\[train"),
        (
            {"kind": "rank_sum_precision", "k": 9},
            ["cells.where=\"perturbation != 'non-targeting'\""],
            1,
            "is a control",
        ),
        ({"kind": "wasserstein"}, [], 1, "with 30 genes makes .* edges at most; set k to fewer"),
        ({"kind": "reference", "file": "none.csv"}, [], 1, "none.csv: no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(folder, tree, overrides, replicates, message):
    with pytest.raises(UserError, match=message):
        refuse_unfit(objectives(tree), run_config(folder, *overrides), replicates)


def test_small_groups_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture):
    chosen = objectives({"kind": "wasserstein", "k": 50})
    refuse_unfit(chosen, run_config(folder), 1)
    sizes = held_out(folder).obs["perturbation"].value_counts().drop("non-targeting")
    (record,) = caplog.records
    assert f"have {sizes.median():g} cells there or fewer" in record.getMessage()


def test_a_model_of_moments_has_no_reconstruction(folder: Path):
    run = run_config(folder, "training.validation=0.1", kind="catran_d")
    with pytest.raises(UserError, match=r"learns from the moments of all cells; set training\.source=cells"):
        refuse_unfit(objectives({"kind": "reconstruction"}), run, 1)


def test_what_can_be_measured_is_not_refused(folder: Path):
    chosen = objectives(
        {"kind": "reference", "file": folder / "network.csv"},
        {"kind": "wasserstein", "k": 200},
        {"kind": "stability", "k": 870},
        {"kind": "reconstruction"},
    )
    refuse_unfit(chosen, run_config(folder), 2)
    with pytest.raises(UserError, match="there are 2 objectives reconstruction; leave all but one"):
        refuse_unfit([*chosen, chosen[-1]], run_config(folder), 2)


def test_a_run_that_trained_on_the_cells_is_refused_when_measured_too(folder: Path):
    train_run(load_run(folder / "catran_d.yaml", ["name=leaky"]))
    with pytest.raises(UserError, match=r"trains on cells.split=train,validation,test; set cells.split=\[train\]"):
        measured(objectives({"kind": "wasserstein", "k": K}), [str(folder / "runs" / "leaky")])
    with pytest.raises(UserError, match="has not looked at held-out cells"):
        measured(objectives({"kind": "reconstruction"}), [str(folder / "runs" / "leaky")])


def test_causalbench_has_a_split_of_its_own(folder: Path, tmp_path: Path):
    counts, obs = small_counts(900)
    write_store(tmp_path / "s.zarr", counts, obs, genes(12), "counts", {"name": "made here"})
    run = run_config(
        folder, f"store={tmp_path}/s.zarr", "causalbench.split=train", "cells.split=[train,validation,test]"
    )
    with pytest.raises(UserError, match=r"set the objective's split to test, and causalbench\.split=train"):
        refuse_unfit(objectives({"kind": "wasserstein", "k": 1}), run, 1)
    chosen = objectives({"kind": "wasserstein", "k": 2, "split": "test"})
    refuse_unfit(chosen, run, 1)
    own = CausalBenchConfig(split="test")
    cells = select(open_store(tmp_path / "s.zarr"), SelectionConfig(causalbench=own))
    both = mean_wasserstein(score_edges(cells, edge_list(["g1", "g3"], ["g3", "g1"], [2.0, 1.0])), 2)
    assert baseline(chosen, run)["random"] == {"wasserstein@2 test": pytest.approx(both)}


def test_settings_are_checked_and_files_found_from_anywhere():
    class Sweep(Config):
        objectives: list[ObjectiveConfig]

    tree = {"objectives": [{"kind": "reference", "file": "a.csv", "all_pairs": True}]}
    with pytest.raises(ConfigError, match=r"objectives\.0\.all_pairs: Value error, it is BEELINE's"):
        validate(Sweep, tree, "sweep.yaml")
    with pytest.raises(ConfigError, match="Input tag 'wassers' found"):
        validate(Sweep, {"objectives": [{"kind": "wassers"}]}, "sweep.yaml")
    tree["objectives"][0]["lineage"] = "beeline"
    (found,) = validate(Sweep, tree, "sweep.yaml").objectives
    assert found.file == Path.cwd() / "a.csv"
    assert found.name == "auprc_ratio beeline all pairs"
    assert "BEELINE" in found.definition
