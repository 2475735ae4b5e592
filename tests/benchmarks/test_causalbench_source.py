"""The readers of the published files: an h5ad of counts, dense or sparse, and the sheets of the summary table."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from grndist.benchmarks.causalbench import CasesError, store_of, summary_of
from grndist.benchmarks.causalbench.source import labels_column
from grndist.data.selection.summary_table import strong_perturbations
from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.genes import NON_TARGETING
from tests.benchmarks.published import LARGE, SMALL


@pytest.fixture
def h5ad(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / made.name))


def test_genes_and_labels_are_ensembl_ids_and_symbols_stand_beside(h5ad: Path):
    assert labels_column(h5ad) == "gene_id"
    where, lines = store_of(str(h5ad))
    store = open_store(where)
    assert (store.n_cells, store.n_genes) == (SMALL["cells"], SMALL["genes"])
    sizes = store.obs["perturbation"].value_counts()
    assert sizes[NON_TARGETING] == SMALL["controls"]
    measured = sizes[sizes.index.isin(store.panel.names)]
    assert (measured > 100).sum() == LARGE
    assert {"gene", "UMI_count"} <= set(store.obs.columns)
    assert "gene_name" in store.var
    assert any("400 control" in line for line in lines)


def test_a_store_beside_the_file_is_used_again_if_it_is_of_that_file(h5ad: Path):
    where, _ = store_of(str(h5ad))
    before = open_store(where).digest
    again, lines = store_of(str(h5ad))
    assert again == where
    assert "before" in lines[0]
    assert open_store(again).digest == before
    data = anndata.read_h5ad(h5ad)
    data[:-1].write_h5ad(h5ad)
    with pytest.raises(CasesError, match="made of another file"):
        store_of(str(h5ad))


def test_a_dense_matrix_as_published_makes_the_same_store(h5ad: Path, tmp_path: Path):
    data = anndata.read_h5ad(h5ad)
    data.X = data.X.toarray()
    (tmp_path / "dense").mkdir()
    data.write_h5ad(tmp_path / "dense" / h5ad.name)
    one, other = (open_store(store_of(str(path))[0]) for path in (h5ad, tmp_path / "dense" / h5ad.name))
    assert np.array_equal(one.read_rows(0, 50).toarray(), other.read_rows(0, 50).toarray())
    assert list(one.obs["perturbation"]) == list(other.obs["perturbation"])


def test_labels_of_symbols_are_left_to_ingest(h5ad: Path):
    data = anndata.read_h5ad(h5ad)
    data.var_names = data.var["gene_name"].astype(str)
    data.write_h5ad(h5ad)
    assert labels_column(h5ad) is None
    store = open_store(store_of(str(h5ad))[0])
    assert set(store.obs["perturbation"].astype(str)) & set(store.panel.names)


def test_no_file_is_said(tmp_path: Path):
    with pytest.raises(CasesError, match="no such file"):
        store_of(str(tmp_path / "none.h5ad"))
    with pytest.raises(UserError, match="no such store"):
        store_of(str(tmp_path / "none.zarr"))


@pytest.mark.parametrize(
    ("text", "data", "sheet"),
    [
        ("", "K562_essential_raw_singlecell_01.h5ad", "TabB_K562_day6_summary_stat"),
        ("", "/data/rpe1_raw_singlecell_01.h5ad", "TabC_RPE1_summary_statistic"),
        (":TabA_K562_day8_summary_stat", "x.zarr", "TabA_K562_day8_summary_stat"),
    ],
)
def test_the_sheet_is_the_one_named_or_that_of_the_cell_line(made: Path, text: str, data: str, sheet: str):
    table = made.with_suffix(".xlsx")
    found = summary_of(f"{table}{text}", data)
    assert (found.file, found.sheet) == (table, sheet)


def test_strong_perturbations_are_the_large_ones(made: Path):
    strong = strong_perturbations(summary_of(str(made.with_suffix(".xlsx")), "K562.h5ad"))
    assert len(strong) == LARGE


@pytest.mark.parametrize(("data", "words"), [("x.zarr", "has several sheets"), ("K562_rpe1.zarr", "several sheets")])
def test_a_sheet_that_does_not_follow_is_asked_for(made: Path, data: str, words: str):
    with pytest.raises(CasesError, match=words):
        summary_of(str(made.with_suffix(".xlsx")), data)


def test_text_has_no_sheets_and_a_broken_xlsx_is_said(tmp_path: Path):
    (tmp_path / "table.csv").write_text("genetic perturbation\n")
    assert summary_of(str(tmp_path / "table.csv"), "x").sheet is None
    with pytest.raises(CasesError, match="has no sheets"):
        summary_of(f"{tmp_path / 'table.csv'}:TabB", "x")
    (tmp_path / "table.xlsx").write_bytes(b"no workbook")
    with pytest.raises(UserError, match="cannot be read"):
        summary_of(str(tmp_path / "table.xlsx"), "x")


def test_edges_of_the_truth_are_of_the_stores_genes(made: Path):
    truth = pd.read_csv(made.with_name("K562_small.edges.tsv"), sep="\t")
    assert set(truth["regulator"]) | set(truth["target"]) <= set(anndata.read_h5ad(made).var_names)
