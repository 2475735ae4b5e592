from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grndist.data.ingest.build import write_store
from grndist.data.normalise import ExpressionConfig, expression, moments, standardised
from grndist.data.store import Store, open_store
from grndist.data.view import whole
from tests.conftest import genes, small_counts


def seen(store: Store, config: ExpressionConfig) -> np.ndarray:
    values = expression(store.read_rows(0, store.n_cells), store.totals, store, config)
    return values if isinstance(values, np.ndarray) else values.toarray()


def test_counts_are_scaled_to_the_median_total_and_logged(store: Store):
    counts = store.read_rows(0, 300).toarray()
    wanted = np.log1p(counts / counts.sum(1, keepdims=True) * np.median(counts.sum(1)))
    assert np.allclose(seen(store, ExpressionConfig()), wanted, rtol=1e-5)
    assert np.array_equal(seen(store, ExpressionConfig(transform="none")), counts)


@pytest.mark.parametrize("state", ["log1p", "continuous"])
def test_what_is_no_count_is_never_logged_again(tmp_path: Path, state: str):
    counts, obs = small_counts()
    write_store(tmp_path / "s", counts * 0.3, obs, genes(12), state, {})  # type: ignore[arg-type]
    store = open_store(tmp_path / "s")
    assert np.array_equal(seen(store, ExpressionConfig(transform="log1p")), store.read_rows(0, 300).toarray())


@pytest.mark.parametrize(
    "config", [ExpressionConfig(), ExpressionConfig(transform="none"), ExpressionConfig(cell_minmax=True)]
)
def test_moments_are_those_of_what_the_model_sees(store: Store, config: ExpressionConfig):
    values = seen(store, config).astype(np.float64)
    mean, std = moments(store, config)
    assert np.allclose(mean, values.mean(0), rtol=1e-5)
    assert np.allclose(std, values.std(0), rtol=1e-4)


def test_minmax_maps_every_cell_to_the_unit_interval(store: Store):
    values = seen(store, ExpressionConfig(cell_minmax=True))
    assert np.array_equal(values.min(1), np.zeros(300))
    assert np.array_equal(values.max(1), np.ones(300))


def test_clr_is_seurats(store: Store):
    counts = store.read_rows(0, 300).toarray()
    wanted = [np.log1p(cell / np.exp(np.log1p(cell).sum() / len(cell))) for cell in counts]
    found = seen(store, ExpressionConfig(transform="clr"))
    assert np.allclose(found, wanted, rtol=1e-5)
    assert np.array_equal(found == 0, counts == 0)


VIEWS = [ExpressionConfig(), ExpressionConfig(transform="clr"), ExpressionConfig(transform="none")]


@pytest.mark.parametrize("config", VIEWS, ids=lambda config: config.transform)
def test_fewer_genes_change_no_value(store: Store, config: ExpressionConfig):
    """Library size and centre are those of all genes of the store; the median total is the view's."""
    view = replace(whole(store), columns=np.array([1, 4, 7]))
    values, totals = store.read_rows(0, 300), store.totals
    assert np.array_equal(expression(values, totals, view, config).toarray(), seen(store, config)[:, [1, 4, 7]])
    doubled = replace(view, median_total=2 * view.median_total)
    assert np.array_equal(expression(values, totals, doubled, config).toarray(), seen(store, config)[:, [1, 4, 7]]) == (
        config.transform != "log1p"
    )


def test_minmax_is_over_the_genes_of_the_view(store: Store):
    view = replace(whole(store), columns=np.array([1, 4, 7]))
    values, config = store.read_rows(0, 300), ExpressionConfig(cell_minmax=True)
    logged = seen(store, ExpressionConfig())[:, [1, 4, 7]]
    low, high = logged.min(1, keepdims=True), logged.max(1, keepdims=True)
    wanted = (logged - low) / np.where(high > low, high - low, 1)
    assert np.allclose(expression(values, store.totals, view, config), wanted)


CONFIGS = [
    ExpressionConfig(transform=transform, cell_minmax=minmax, zscore=zscore)
    for transform in ("none", "log1p", "clr")
    for minmax in (False, True)
    for zscore in ("all", "nonzero")
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.transform}-{'minmax' * c.cell_minmax}-{c.zscore}")
@pytest.mark.parametrize("some_cells", [False, True])
def test_moments_of_a_view(store: Store, config: ExpressionConfig, some_cells: bool):
    view = replace(whole(store), columns=np.array([0, 1, 3, 4, 10]))
    view = replace(view, rows=view.rows[7::3]) if some_cells else view
    values = store.read_cells(view.rows)
    found = expression(values, view.totals, view, config)
    entries = np.ma.array(found if config.cell_minmax else found.toarray(), dtype=np.float64)
    if config.zscore == "nonzero":
        entries.mask = view.cut(values).toarray() == 0
    mean, std = moments(view, config)
    assert np.allclose(mean, entries.mean(0), rtol=1e-5)
    assert np.allclose(std, entries.std(0), rtol=1e-4)


def deepsem(data: np.ndarray) -> np.ndarray:
    """As DeepSEM standardises a data set before training."""
    means, stds = [], []
    for gene in data.T:
        means.append(gene[gene != 0].mean())
        stds.append(gene[gene != 0].std())
    return np.clip((data - np.array(means)) / np.array(stds), -10, 10)


def test_nonzero_scores_are_deepsems(store: Store):
    config = ExpressionConfig(zscore="nonzero", clip=10)
    values = seen(store, config).astype(np.float64)
    assert np.allclose(standardised(values, *moments(store, config), config), deepsem(values), atol=1e-3)


def test_scores_have_mean_0_and_deviation_1_and_are_clipped(store: Store):
    config = ExpressionConfig(zscore="all")
    values = seen(store, config).astype(np.float64)
    scores = standardised(values, *moments(store, config), config)
    assert np.allclose(scores.mean(0), 0, atol=1e-5)
    assert np.allclose(scores.std(0), 1, atol=1e-4)
    clipped = standardised(values, *moments(store, config), ExpressionConfig(zscore="all", clip=0.5))
    assert np.array_equal(clipped, np.clip(scores, -0.5, 0.5))
    assert standardised(values, np.ones(12), np.ones(12), ExpressionConfig()) is values


@pytest.mark.parametrize("zscore", ["all", "nonzero"])
@pytest.mark.parametrize("some_cells", [False, True])
def test_a_gene_that_never_varies_is_only_shifted(tmp_path: Path, zscore: str, some_cells: bool):
    counts, obs = small_counts()
    values = counts.toarray() * 0.3
    values[:, 2], values[:, 4] = 0.7, 0
    values[::2, 6] = 0.7
    values[1::2, 6] = 0
    write_store(tmp_path / "s", type(counts)(values), obs, genes(12), "continuous", {})
    view = whole(open_store(tmp_path / "s"))
    view = replace(view, rows=view.rows[::2]) if some_cells else view
    config = ExpressionConfig(zscore=zscore)  # type: ignore[arg-type]
    mean, std = moments(view, config)
    assert std[2] == std[4] == 0
    scores = standardised(view.store.read_cells(view.rows).toarray().astype(np.float64), mean, std, config)
    assert np.allclose(scores[:, 2], 0)
    assert (scores[:, 4] == 0).all()
    assert (std[6] == 0) == (zscore == "nonzero")
    assert np.abs(scores).max() < 50


def test_cells_without_counts_stay_zero(tmp_path: Path):
    counts, obs = small_counts()
    empty = counts.toarray()
    empty[:5] = 0
    write_store(tmp_path / "s", type(counts)(empty), obs, genes(12), "counts", {})
    store = open_store(tmp_path / "s")
    for config in (*VIEWS, ExpressionConfig(cell_minmax=True)):
        values = seen(store, config)
        assert np.isfinite(values).all()
        assert (values[store.totals == 0] == 0).all()
