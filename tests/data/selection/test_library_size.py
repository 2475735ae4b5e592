import anndata
import numpy as np
import pytest
import scanpy as sc
from hypothesis import given
from hypothesis import strategies as st

from grndist.data.selection.library_size import median_total


@given(totals=st.lists(st.integers(1, 1000), min_size=1, max_size=20), n_empty=st.integers(0, 30))
def test_empty_cells_do_not_count(totals: list[int], n_empty: int):
    assert median_total(np.array([*totals, *[0] * n_empty], dtype=float)) == np.median(totals)


def test_it_is_what_scanpy_scales_to():
    values = np.random.default_rng(0).poisson(2, (100, 10)).astype(np.float32)
    values[40:] = 0
    data = anndata.AnnData(values.copy())
    with pytest.warns(UserWarning, match="zero counts"):
        sc.pp.normalize_total(data)
    assert np.allclose(data.X[:40].sum(axis=1), median_total(values.sum(axis=1, dtype=np.float64)))


def test_nothing_was_seen_in_any_cell():
    assert median_total(np.zeros(3)) == median_total(np.zeros(0)) == 0
