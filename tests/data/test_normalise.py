from pathlib import Path

import numpy as np
import pytest

from grndist.data.build import write_store
from grndist.data.normalise import ExpressionConfig, expression, moments
from grndist.data.store import Store, open_store
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
