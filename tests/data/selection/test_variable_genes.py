from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.selection import variable_genes
from grndist.data.selection.variable_genes import highly_variable
from grndist.data.store import open_store
from grndist.data.view import View, whole
from grndist.errors import UserError
from tests.conftest import genes
from tests.data.selection.selecting import dense, perturb_seq, perturb_seq_store


@pytest.fixture(scope="module")
def many_genes(tmp_path_factory: pytest.TempPathFactory) -> View:
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(3)
    counts = rng.poisson(rng.gamma(rng.uniform(0.2, 4, 300), 1, (700, 300)))
    counts[:, 17] = 0
    _, obs, _ = perturb_seq()
    write_store(folder / "m.zarr", sparse.csr_matrix(counts), obs.iloc[:700], genes(300), "counts", {})
    return whole(open_store(folder / "m.zarr"))


def scanpys(view: View, n_top: int) -> np.ndarray:
    data = anndata.AnnData(sparse.csr_matrix(dense(view).astype(np.float64)))
    (_, every), *_ = view.whole_rows(view.n_cells)
    data.X = sparse.csr_matrix(data.X.multiply(view.median_total / every.sum(1)))
    sc.pp.log1p(data)
    return sc.pp.highly_variable_genes(data, n_top_genes=n_top, inplace=False)["highly_variable"].to_numpy()


@pytest.mark.parametrize("n_top", [1, 40, 150])
def test_they_are_those_scanpy_finds_in_memory(many_genes: View, monkeypatch: pytest.MonkeyPatch, n_top: int):
    monkeypatch.setattr(variable_genes, "CELLS", 64)
    view = replace(many_genes, rows=np.flatnonzero(many_genes.rows % 5 > 0), columns=np.arange(1, 290))
    assert np.array_equal(highly_variable(view, n_top), scanpys(view, n_top))


def test_logged_values_are_taken_as_they_are(tmp_path: Path):
    counts, obs, var = perturb_seq()
    logged = counts.astype(np.float32).log1p()
    write_store(tmp_path / "l.zarr", logged, obs, var, "log1p", {})
    data = anndata.AnnData(logged.astype(np.float64))
    wanted = sc.pp.highly_variable_genes(data, n_top_genes=9, inplace=False)["highly_variable"].to_numpy()
    assert np.array_equal(highly_variable(whole(open_store(tmp_path / "l.zarr")), 9), wanted)


def test_genes_without_variance_are_never_chosen(tmp_path: Path):
    view = whole(perturb_seq_store(tmp_path))
    chosen = highly_variable(view, view.n_genes)
    assert not chosen[39]
    assert chosen[:39].all()


def test_what_scanpy_cannot_rank_is_refused(tmp_path: Path):
    view = whole(perturb_seq_store(tmp_path))
    with pytest.raises(UserError, match="scanpy cannot rank the 1 genes of 1430 cells"):
        highly_variable(replace(view, columns=np.array([39])), 1)
    counts, obs, var = perturb_seq()
    write_store(tmp_path / "c.zarr", counts * 0.5, obs, var, "continuous", {})
    with pytest.raises(UserError, match=r"genes\.highly_variable needs counts or log1p values"):
        highly_variable(whole(open_store(tmp_path / "c.zarr")), 5)
