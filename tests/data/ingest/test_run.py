import json
import tracemalloc
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from pydantic import ValidationError
from scipy import sparse

from grndist.data.ingest import IngestConfig, build, ingest, ingest_files
from grndist.data.ingest import run as ingest_module
from grndist.data.ingest.schedule import inline
from grndist.data.sources import source_digest
from grndist.data.store import open_store
from grndist.errors import UserError
from tests.data.ingest.ingesting import (
    GENES,
    LABELS,
    counts,
    h5ad,
    ingested,
    labels_by_cell,
    refused,
    said,
    values_by_cell,
)


def test_counts_and_labels_arrive_with_their_cells(tmp_path: Path):
    report, store = ingested(h5ad(tmp_path, perturbation=LABELS))
    assert store.state == report.state == "counts"
    assert np.array_equal(values_by_cell(store).to_numpy(), counts())
    assert list(labels_by_cell(store)) != sorted(labels_by_cell(store))  # shuffled, and still right
    assert [labels_by_cell(store)[f"c{number}"] for number in range(8)] == [
        *("non-targeting", "STAT1", "JAK2", "MYC", "STAT1+JAK2", "IRF1", "non-targeting", "JAK2")
    ]
    assert store.obs["source_perturbation"].astype(str)["c5"] == "IRF1+ctrl"
    assert store.obs["is_control"].sum() == report.n_controls == 2


def test_the_report_says_what_was_found(tmp_path: Path):
    report, _ = ingested(h5ad(tmp_path, perturbation=LABELS))
    assert (report.n_cells, report.n_genes) == (8, 4)
    assert set(report.perturbed_genes) == {"STAT1", "JAK2", "IRF1"}
    assert report.unmapped == {"MYC": 1, "STAT1+JAK2": 1}
    assert report.combined == {"STAT1+JAK2": 1}
    assert said(report, "state: counts, because every value is a whole number")
    assert said(report, "column 'perturbation' (found by its name and its control label); control cells: 'ctrl'")
    assert said(report, "2 control, 4 with one perturbed gene")
    assert said(report, "labels of one gene and control are that gene: 1: 'IRF1+ctrl'")
    assert said(report, "such as CaTran-D; others count none): 1, 1 cells: 'STAT1+JAK2' (1 cells)")
    assert said(report, "others use these cells neither as control nor as perturbation): 1, 1 cells: 'MYC'")


def test_where_keeps_the_cells_for_which_it_holds(tmp_path: Path):
    path = h5ad(tmp_path, gene=LABELS, frac=[0.1, 0.95, 0.91, 0.2, 0.99, np.nan, 1.0, 0.9])
    report, store = ingested(path, where="frac > 0.9")
    assert sorted(store.obs.index) == ["c1", "c2", "c4", "c6"]
    assert np.array_equal(values_by_cell(store).to_numpy(), counts()[[1, 2, 4, 6]])
    assert said(report, "4 of 8 dropped by --where 'frac > 0.9'")


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("gene == 'ctrl' and frac < 0.5", ["c0"]),
        ("gene.notna() & `two words` in [1, 2]", ["c1", "c2"]),
        ("gene.str.startswith('M')", ["c3"]),
        ("flag", ["c7"]),
        ("not flag and index == 'c2'", ["c2"]),
    ],
)
def test_expressions(tmp_path: Path, where: str, kept: list[str]):
    columns = {"frac": np.linspace(0, 1, 8), "two words": list(range(8)), "flag": [False] * 7 + [True]}
    _, store = ingested(h5ad(tmp_path, gene=LABELS, **columns), where=where)
    assert sorted(store.obs.index) == kept


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("frac >", "cannot be evaluated (invalid syntax"),
        ("fraq > 0.9", "'fraq' is not defined; its columns are 'gene', 'frac'"),
        ("gene == ctrl", "write text in quotes"),
        ("frac > 2", "holds for none of its 8 cells"),
        ("frac", "not true or false for each cell"),
        ("True", "not true or false for each cell"),
        ("x = 1", "not true or false for each cell"),
        ("gene + 1", "cannot be evaluated"),
        ("frac.nonsense()", "cannot be evaluated"),
        ("", "cannot be evaluated"),
        ("@path", "is not defined"),
        ("__import__('os')", "is not"),
    ],
)
def test_mistakes_in_where(tmp_path: Path, where: str, words: str):
    path = h5ad(tmp_path, gene=LABELS, frac=np.linspace(0, 1, 8))
    refused(path, f"--where {where!r}", words, where=where)


def test_where_that_leaves_only_zeros(tmp_path: Path):
    values = counts()
    values[0] = 0
    refused(h5ad(tmp_path, values), "hold only zeros", where="index == 'c0'")


def test_log_values_are_kept_as_they_are(tmp_path: Path):
    values = np.log1p(counts())
    report, store = ingested(h5ad(tmp_path, values))
    assert report.state == store.state == "log1p"
    assert said(report, "values are not whole and at most")
    assert np.array_equal(values_by_cell(store).to_numpy(), values)


@pytest.mark.parametrize(
    ("change", "state", "why"),
    [
        (lambda x: np.log1p(1e4 * x / x.sum(axis=1, keepdims=True)), "log1p", "are equal within 1 %"),
        (lambda x: x * 0.25, "log1p", "at most"),
        (lambda x: x * 11.1, "continuous", "not whole and reach"),
        (lambda x: x * 70001, "counts", "whole"),
    ],
)
def test_the_state_is_found_with_its_reason(tmp_path: Path, change, state: str, why: str):
    values = change(counts().astype(np.float64) + 1)
    report, store = ingested(h5ad(tmp_path, values))
    assert report.state == state
    assert said(report, why)
    assert np.array_equal(values_by_cell(store).to_numpy(), values.astype(np.float32))


def test_the_state_can_come_from_the_file_or_by_option(tmp_path: Path):
    path = h5ad(tmp_path, counts() * 11.1)
    data = anndata.read_h5ad(path)
    data.uns["log1p"] = {"base": None}
    data.write_h5ad(tmp_path / "logged.h5ad")
    assert said(ingested(tmp_path / "logged.h5ad")[0], "the file says so")
    report, _ = ingested(path, state="log1p")
    assert said(report, "state: log1p, because --state says so")
    report, store = ingested(h5ad(tmp_path), state="continuous")
    assert store.read_rows(0, 1).dtype == np.float32


def test_counts_that_are_none_are_refused(tmp_path: Path):
    values = counts()
    values[2, 1] = 2.5
    refused(h5ad(tmp_path, values), "gene 'JAK2' in cell 'c2' is 2.5 (1 values", "--layer", state="counts")
    values[2, 1] = 2.0**40
    refused(h5ad(tmp_path, values), "gene 'JAK2' in cell 'c2'", "4294967295", "--state continuous")


@pytest.mark.parametrize("profile", ["train", "archive"])
def test_values_that_float32_rounds_to_zero_do_not_move_the_others(tmp_path: Path, profile: str):
    values = counts(40).astype(np.float64) * 0.3
    values[::3, 2] = 1e-60
    _, store = ingested(h5ad(tmp_path, values), profile=profile, state="continuous")
    there = store.read_rows(0, store.n_cells)
    expected = values.astype(np.float32)[store.obs["source_row"]]
    assert np.array_equal(there.toarray(), expected)
    assert there.nnz == store.indptr[-1] == np.count_nonzero(expected)


def test_cells_without_counts_are_left_out_of_the_median_as_in_scanpy(tmp_path: Path):
    values = counts(20)
    values[7:] = 0
    path = h5ad(tmp_path, values)
    _, store = ingested(path)
    data = anndata.AnnData(values.copy())
    with pytest.warns(UserWarning, match="zero counts"):
        sc.pp.normalize_total(data)
    assert store.median_total == pytest.approx(data.X.sum(axis=1).max())
    logged = np.log1p(data.X.astype(np.float64)).mean(axis=0)
    assert np.allclose(store.var["log1p_mean"], logged, rtol=1e-6)


def test_columns_that_a_store_writes_itself_are_kept_under_another_name(tmp_path: Path):
    own = {"n_genes": [99] * 8, "total_counts": [1.5] * 8, "source_file": ["mine"] * 8, "is_control": ["x"] * 8}
    path = h5ad(tmp_path, perturbation=LABELS, source_row=[7] * 8, source_split=["b"] * 8, split=["a"] * 8, **own)
    data = anndata.read_h5ad(path)
    data.var["mean"] = -1.0
    data.write_h5ad(path)
    report, store = ingested(path)
    for name, values in own.items():
        assert store.obs[f"source_{name}"].tolist() == values
    assert set(store.obs["source_split"]) == {"b"}
    assert set(store.obs["source_source_split"]) == {"a"}
    assert set(store.obs["source_source_row"]) == {7}
    assert set(store.var["source_mean"]) == {-1}
    assert np.array_equal(store.obs["total_counts"], values_by_cell(store).loc[store.obs.index].sum(axis=1))
    assert said(report, "columns of the source whose names a store uses itself are kept as 'source_")
    assert said(report, "'source_source_file'")


def test_silent_cells_and_unseen_genes_are_said(tmp_path: Path):
    values = counts()
    values[3], values[:, 1:3] = 0, 0
    report, store = ingested(h5ad(tmp_path, values))
    assert store.n_cells == 8
    assert said(report, "1 in which nothing was seen")
    assert said(report, "2 never seen in these cells are kept: 'JAK2', 'IRF1'")


def test_genes_of_zero_variance_and_labels_of_one_cell_are_said(tmp_path: Path):
    values = counts()
    values[:, 2] = 3
    report, store = ingested(h5ad(tmp_path, values, perturbation=LABELS))
    assert said(report, "genes: 1 of zero variance (the same in every cell) are kept: 'IRF1'")
    assert said(report, "labels of one cell: 4: ")
    assert store.var["variance"]["IRF1"] == 0
    assert said(report, "of the source's")


def test_only_zeros(tmp_path: Path):
    refused(h5ad(tmp_path, counts() * 0), "is empty", "all values of its 8 cells and 4 genes are zero")


@pytest.mark.parametrize("value", [2.0**32 - 1, 2.0**24 + 1])
def test_large_counts_are_exact(tmp_path: Path, value: float):
    values = counts().astype(np.float64)
    values[3, 1] = value
    _, store = ingested(h5ad(tmp_path, values))
    assert np.array_equal(values_by_cell(store).to_numpy(), values)


def test_cells_are_split_as_asked_and_a_column_of_that_name_is_kept(tmp_path: Path):
    path = h5ad(tmp_path, counts(100), perturbation=["ctrl", "JAK2"] * 50, split=["old"] * 100)
    _, store = ingested(path, split=(0.5, 0.2, 0.3), split_seed=3)
    by_label = store.obs.groupby("perturbation", observed=True)["split"].value_counts()
    assert by_label["JAK2"].to_dict() == {"train": 25, "validation": 10, "test": 15}
    assert set(store.obs["source_split"]) == {"old"}
    with pytest.raises(UserError, match="fractions of train, validation and test"):
        ingest(path, tmp_path / "x.zarr", IngestConfig(split=(0.5, 0.2, 0.2)))


def test_a_missing_value_of_a_cell_stays_missing(tmp_path: Path):
    columns = {"batch": pd.Categorical(["a", None] * 4), "score": [1.0, np.nan] * 4}
    _, store = ingested(h5ad(tmp_path, **columns))
    missing = store.obs.index.isin(["c1", "c3", "c5", "c7"]).tolist()
    assert store.obs["batch"].isna().tolist() == store.obs["score"].isna().tolist() == missing


@pytest.mark.parametrize("profile", ["train", "archive"])
def test_a_store_is_a_source(tmp_path: Path, profile: str):
    _, first = ingested(h5ad(tmp_path, perturbation=LABELS))
    report = ingest(tmp_path / "out.zarr", tmp_path / "again.zarr", IngestConfig(profile=profile, shuffle_seed=9))
    again = open_store(tmp_path / "again.zarr")
    assert report.n_controls == 2
    assert values_by_cell(again).equals(values_by_cell(first))
    assert labels_by_cell(again) == labels_by_cell(first)
    own = [table.columns for table in (first.obs, first.var)]
    assert [set(table.columns) - set(names) for table, names in zip((again.obs, again.var), own, strict=True)] == [
        {"source_source_file", "source_source_row"}, set()
    ]  # fmt: skip


@pytest.mark.slow
def test_memory_does_not_grow_with_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingest_module, "VALUES_PER_PART", 2**13)
    for name, value in {"CHUNK": 2**10, "SHARD": 2**13}.items():
        monkeypatch.setattr(build, name, value)
    matrix = sparse.random(4000, 300, 0.5, "csr", np.float32, np.random.default_rng(0))
    peaks = []
    for n_cells in (400, 4000):  # 60 and 600 thousand values of 8 bytes
        anndata.AnnData(matrix[:n_cells]).write_h5ad(tmp_path / f"{n_cells}.h5ad")
        ingest_files([tmp_path / f"{n_cells}.h5ad"], tmp_path / f"w{n_cells}", IngestConfig(), run=inline)  # compiled
        tracemalloc.start()
        ingest_files([tmp_path / f"{n_cells}.h5ad"], tmp_path / f"s{n_cells}", IngestConfig(), run=inline)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < matrix.nnz * 8 / 3  # tables of cells; the values themselves are ten times as many


def test_the_record_names_the_file_and_not_the_machine(tmp_path: Path):
    path = h5ad(tmp_path)
    (tmp_path / "cells.csv").write_text("cell,gene\n" + "".join(f"c{n},{label}\n" for n, label in enumerate(LABELS)))
    _, store = ingested(path, cells_table=tmp_path / "cells.csv", shuffle_seed=5)
    record = json.loads(store.description["source"])
    assert record["file"] == "d.h5ad"
    assert record["sha256"] == store.description["source_digest"] == source_digest(path)
    assert record["cells_table_sha256"] == source_digest(tmp_path / "cells.csv")
    assert json.loads(record["options"]) == {"cells_table": "cells.csv", "shuffle_seed": 5}
    assert str(tmp_path) not in store.description["source"]


def test_the_same_source_gives_the_same_store_and_another_seed_another_order(tmp_path: Path):
    path = h5ad(tmp_path, gene=LABELS)
    first, second, other = (ingested(path, shuffle_seed=seed)[1] for seed in (1, 1, 2))
    assert first.digest == second.digest != other.digest


def test_labels_from_a_table_of_cells(tmp_path: Path):
    rows = "\n".join(f"c{n},{','.join(map(str, row))}" for n, row in enumerate(counts()))
    (tmp_path / "d.csv").write_text(f"cell,{','.join(GENES)}\n{rows}\n")
    (tmp_path / "cells.tsv").write_text(
        "".join(f"c{n}\t{label}\n" for n, label in [("", "gene"), *enumerate(LABELS)])[1:]
    )
    report, store = ingested(tmp_path / "d.csv", orientation="cells_in_rows", cells_table=tmp_path / "cells.tsv")
    assert report.n_controls == 2
    assert labels_by_cell(store)["c5"] == "IRF1"
    assert np.array_equal(values_by_cell(store).to_numpy(), counts())


def test_an_existing_store_is_refused_before_the_source_is_read(tmp_path: Path):
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(UserError, match="exists already; pass --overwrite"):
        ingest(tmp_path / "missing.h5ad", tmp_path / "out.zarr", IngestConfig())


@pytest.mark.parametrize(
    "options", [{"state": "raw"}, {"shuffle_seed": -1}, {"orientation": "rows"}, {"wher": "a > 1"}]
)
def test_options_out_of_bounds(options: dict):
    with pytest.raises(ValidationError, match=next(iter(options))):
        IngestConfig(**options)


def test_papalexi(data_dir: Path, tmp_path: Path):
    path = data_dir / "papalexi_eccite_subset" / "papalexi_lowmoi.h5ad"
    report = ingest(path, tmp_path / "p.zarr", IngestConfig(where="grna_max_frac > 0.9"))
    store = open_store(tmp_path / "p.zarr")
    assert (report.n_cells, report.n_genes, report.n_controls) == (12_993, 299, 1_565)
    assert said(report, "7,736 of 20,729 dropped")
    measured = {"STAT1", "JAK2", "CMTM6", "STAT2", "UBE2L6", "STAT3", "TNFRSF14", "IFNGR2", "NFKBIA"}
    assert set(report.perturbed_genes) == measured
    assert len(report.unmapped) == 16
    assert report.combined == {}

    whole = anndata.read_h5ad(path)
    kept = whole[whole.obs["grna_max_frac"] > 0.9]
    assert (store.obs["perturbation"].astype(str) == kept.obs["perturbation"].astype(str).loc[store.obs.index]).all()
    assert np.array_equal(store.read_rows(0, 500).toarray(), kept[store.obs.index[:500]].X.toarray())


def test_mdc(data_dir: Path, tmp_path: Path):
    path = data_dir / "beeline_mDC_TFs500" / "ExpressionData.csv"
    report = ingest(path, tmp_path / "m.zarr", IngestConfig(orientation="genes_in_rows"))
    store = open_store(tmp_path / "m.zarr")
    assert (report.n_cells, report.n_genes, report.state, report.n_controls) == (383, 821, "log1p", 383)
    expected = pd.read_csv(path, index_col=0, float_precision="round_trip").T.astype(np.float32)
    pd.testing.assert_frame_equal(values_by_cell(store), expected.sort_index(), check_names=False, check_exact=True)
