from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grndist.data.ingest.build import write_store
from grndist.data.selection.quality import count_shares, count_tables, own_values, remaining, seen
from grndist.data.store import Store, open_store
from grndist.data.view import View, whole
from grndist.genes import CONTROL
from tests.conftest import genes, small_counts
from tests.data.selection.selecting import dense, perturb_seq_store


@pytest.fixture
def view(store: Store) -> View:
    """Some cells and genes, so that nothing can be taken for the store's."""
    return replace(whole(store), rows=np.arange(20, 290, 2), columns=np.array([0, 1, 3, 4, 5, 9]))


def test_shares_are_of_the_total_over_all_genes(view: View):
    chosen = np.array([[1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1]], dtype=bool)
    wanted = np.stack([dense(view)[:, genes].sum(1) / view.totals for genes in chosen], axis=1)
    np.testing.assert_allclose(count_shares(view, chosen), wanted, rtol=1e-12)


def test_an_empty_cell_has_no_share(tmp_path: Path):
    view = whole(perturb_seq_store(tmp_path))
    shares = count_shares(view, np.ones((1, view.n_genes), dtype=bool))[:, 0]
    assert np.array_equal(shares, (view.totals > 0).astype(float))


def test_own_values_are_those_of_the_perturbed_gene(view: View):
    own, values = view.perturbed, dense(view)
    wanted = [values[cell, column] if column >= 0 else 0 for cell, column in enumerate(own)]
    assert own_values(view, own).tolist() == wanted


@pytest.mark.parametrize("state", ["counts", "log1p", "continuous"])
def test_remaining_compares_with_the_controls(tmp_path: Path, state: str):
    counts, obs = small_counts()
    values = counts if state == "counts" else counts * 0.3
    write_store(tmp_path / "s", values, obs, genes(12), state, {})  # type: ignore[arg-type]
    view = replace(whole(open_store(tmp_path / "s")), rows=np.arange(0, 300, 3))
    linear = dense(view).astype(float)
    linear = {"counts": linear / view.totals[:, None], "log1p": np.expm1(linear), "continuous": linear}[state]
    found = remaining(view)
    for column in (1, 3):
        of_gene = linear[view.perturbed == column, column].mean() / linear[view.perturbed == CONTROL, column].mean()
        assert found[column] == pytest.approx(of_gene, rel=1e-6)
    assert np.isnan(found[[0, 2, *range(4, 12)]]).all()


def test_nothing_remains_to_be_said_of_a_gene_no_control_shows(tmp_path: Path):
    counts, obs = small_counts()
    unseen = counts.toarray()
    unseen[(obs["perturbation"] == "non-targeting").to_numpy(), 3] = 0
    write_store(tmp_path / "s", type(counts)(unseen), obs, genes(12), "counts", {})
    assert np.isnan(remaining(whole(open_store(tmp_path / "s")))[3])


def constant_store(folder: Path, state: str) -> Store:
    counts, obs = small_counts()
    values = counts.toarray().astype(float)
    values[:, 2], values[:, 4] = 3, 0
    values[:, 6] = [3] * 299 + [4]
    values[:, 7] = [0] * 299 + [3]
    values[:, 8] = [3] * 299 + [0]
    write_store(folder / "s", type(counts)(values), obs, genes(12), state, {})  # type: ignore[arg-type]
    return open_store(folder / "s")


@pytest.mark.parametrize("state", ["counts", "continuous"])
@pytest.mark.parametrize("all_cells", [True, False])
def test_constant_genes_are_told_from_those_that_vary_once(tmp_path: Path, state: str, all_cells: bool):
    view = whole(constant_store(tmp_path, state))
    if not all_cells:
        rare = view.obs["source_row"].to_numpy() == 299
        view = replace(view, rows=np.flatnonzero(rare | (view.rows % 2 == 0)))
    found = seen(view)
    assert np.array_equal(found.cells, (dense(view) > 0).sum(0))
    assert np.flatnonzero(found.is_constant).tolist() == [2, 4]


def test_count_tables_count_and_lump_the_largest(view: View):
    columns, controls = np.array([5, 0, 2]), view.perturbed == CONTROL
    found = count_tables(view, controls, columns, levels=3)
    for table, column in zip(found, columns, strict=True):
        values = dense(view)[controls, column]
        assert table.tolist() == [(values == 0).sum(), (values == 1).sum(), (values >= 2).sum()]
