import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import sparse

from grndist.data.ingest import IngestConfig, IngestReport, _meaning, ingest
from grndist.data.sources import SourceError, source_digest
from grndist.data.store import Store, open_store
from grndist.errors import UserError
from grndist.genes import GenePanel

GENES = ["STAT1", "JAK2", "IRF1", "CTRL1"]
LABELS = ["ctrl", "STAT1", "JAK2", "MYC", "STAT1+JAK2", "IRF1+ctrl", "ctrl", "JAK2"]


def counts(n_cells: int = len(LABELS)) -> np.ndarray:
    return np.random.default_rng(0).poisson(2, (n_cells, len(GENES))).astype(np.float32)


def h5ad(folder: Path, values: np.ndarray | None = None, name: str = "d.h5ad", **columns: list) -> Path:
    values = counts() if values is None else values
    obs = pd.DataFrame(columns, index=[f"c{number}" for number in range(len(values))])
    anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(folder / name)
    return folder / name


def ingested(source: Path, **options) -> tuple[IngestReport, Store]:
    store = source.parent / "out.zarr"
    report = ingest(source, store, IngestConfig(**options), overwrite=True)
    return report, open_store(store)


def said(report: IngestReport, words: str) -> bool:
    return any(words in line for line in report.lines)


def refused(source: Path, *words: str, **options) -> None:
    store = source.parent / "out.zarr"
    with pytest.raises(SourceError) as caught:
        ingest(source, store, IngestConfig(**options))
    assert str(source) in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert [file.name for file in source.parent.iterdir() if ".zarr" in file.name] == []


def labels_by_cell(store: Store) -> dict[str, str]:
    return store.obs["perturbation"].astype(str).to_dict()


def values_by_cell(store: Store) -> pd.DataFrame:
    rows = store.read_rows(0, store.n_cells).toarray()
    return pd.DataFrame(rows, store.obs.index, store.panel.names).sort_index()


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
    assert said(report, "counted for none of their genes: 1, 1 cells: 'STAT1+JAK2' (1 cells)")
    assert said(report, "no gene of the panel, used neither as control nor as perturbation: 1, 1 cells: 'MYC'")


def test_a_combined_label_is_never_counted_as_one_of_its_genes(tmp_path: Path):
    labels = ["NT", "STAT1+JAK2", "STAT1,JAK2", "STAT1|JAK2", "STAT1; JAK2", "STAT1+STAT1", "ctrl+JAK2", "JAK2+"]
    report, store = ingested(h5ad(tmp_path, gene=labels))
    assert report.perturbed_genes == ("STAT1", "JAK2")
    assert sum(report.combined.values()) == 5
    one_gene = store.perturbed >= 0
    assert sorted(store.obs["gene"].astype(str)[one_gene]) == ["STAT1+STAT1", "ctrl+JAK2"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*GENES, "MYC", "ctrl"]), min_size=1, max_size=3), st.sampled_from("+,|;"))
def test_what_a_label_means(parts: list[str], separator: str):
    meaning = _meaning(separator.join(parts), ("ctrl",), GenePanel(tuple(GENES)))
    genes = set(parts) - {"ctrl"}
    expected = {0: "non-targeting", 1: next(iter(genes), "")}.get(len(genes), separator.join(parts))
    assert meaning == expected


@pytest.mark.parametrize(
    ("column", "control"),
    [
        ("perturbation", "non-targeting"),
        ("gene", "Non_Targeting"),
        ("guide_target", "nontargeting"),
        ("condition", "control"),
        ("Guide_Target", "CTRL"),
        ("GENE", "nt"),
        ("Condition", "negative_control"),
    ],
)
def test_common_names_are_found(tmp_path: Path, column: str, control: str):
    report, store = ingested(h5ad(tmp_path, **{column: [control] * 5 + ["JAK2"] * 3}))
    assert report.n_controls == 5
    assert report.perturbed_genes == ("JAK2",)
    assert said(report, f"column {column!r}")
    assert set(labels_by_cell(store).values()) == {"non-targeting", "JAK2"}


def test_a_column_without_a_control_label_is_not_taken(tmp_path: Path):
    columns = {"perturbation": ["x"] * 8, "condition": ["ctrl"] * 4 + ["STAT1"] * 4}
    report, store = ingested(h5ad(tmp_path, **columns))
    assert said(report, "column 'condition'")
    assert set(store.obs["source_perturbation"]) == {"x"}


def test_data_without_labels_are_observational(tmp_path: Path):
    report, store = ingested(h5ad(tmp_path, gene=["x"] * 8, batch=["b"] * 8))
    assert report.n_controls == 8
    assert set(labels_by_cell(store).values()) == {"non-targeting"}
    assert said(report, "every cell counts as 'non-targeting'")
    assert said(report, "--perturbation-column COLUMN --control LABEL (columns: 'gene', 'batch')")


def test_names_by_option(tmp_path: Path):
    columns = {"guide": ["DMSO"] * 3 + ["JAK2"] * 5, "perturbation": ["ctrl"] * 8}
    report, store = ingested(h5ad(tmp_path, **columns), perturbation_column="guide", control="DMSO")
    assert report.n_controls == 3
    assert said(report, "column 'guide' (as given); control cells: 'DMSO'")
    assert set(store.obs["source_perturbation"]) == {"ctrl"}


def test_a_control_by_option_finds_its_column(tmp_path: Path):
    columns = {"perturbation": ["ctrl"] * 8, "condition": ["WT"] * 4 + ["STAT1"] * 4}
    report, _ = ingested(h5ad(tmp_path, **columns), control="WT")
    assert said(report, "column 'condition'")


def test_the_first_common_control_name_wins_and_the_other_stays_a_label(tmp_path: Path):
    report, _ = ingested(h5ad(tmp_path, gene=["control"] * 3 + ["NT"] * 2 + ["JAK2"] * 3))
    assert report.n_controls == 3
    assert report.unmapped == {"NT": 2}


def test_a_given_column_without_controls_is_accepted_and_said(tmp_path: Path):
    report, _ = ingested(h5ad(tmp_path, target=["STAT1"] * 4 + ["JAK2"] * 4), perturbation_column="target")
    assert report.n_controls == 0
    assert said(report, "control cells: none: no label is known to mean control (--control LABEL names it)")


def test_labels_that_are_symbols_while_the_panel_is_not(tmp_path: Path):
    path = h5ad(tmp_path, gene=["NT"] * 4 + ["a"] * 2 + ["b"] * 2)
    data = anndata.read_h5ad(path)
    data.var["symbol"] = ["a", "b", "c", "d"]
    data.write_h5ad(path)
    report, _ = ingested(path)
    assert report.perturbed_genes == ()
    assert said(report, "whose names are like 'STAT1', 'JAK2', 'IRF1', ...")
    assert said(report, "--gene-column (there is 'symbol')")
    report, store = ingested(path, gene_column="symbol")
    assert report.perturbed_genes == ("a", "b")
    assert store.panel.names == ("a", "b", "c", "d")
    assert list(store.var["source_index"].astype(str)) == GENES


def test_where_keeps_the_cells_for_which_it_holds(tmp_path: Path):
    path = h5ad(tmp_path, gene=LABELS, frac=[0.1, 0.95, 0.91, 0.2, 0.99, np.nan, 1.0, 0.9])
    report, store = ingested(path, where="frac > 0.9")
    assert sorted(store.obs.index) == ["c1", "c2", "c4", "c6"]
    assert np.array_equal(values_by_cell(store).to_numpy(), counts()[[1, 2, 4, 6]])
    assert said(report, "4 of 8 dropped by --where 'frac > 0.9'")


def test_perturbed_cells_do_not_become_controls_when_where_drops_all_controls(tmp_path: Path):
    report, store = ingested(h5ad(tmp_path, gene=LABELS), where="gene == 'JAK2'")
    assert report.n_controls == 0
    assert set(labels_by_cell(store).values()) == {"JAK2"}
    assert said(report, "0 control, 2 with one perturbed gene")


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


def test_an_absent_column_names_those_there_are(tmp_path: Path):
    path = h5ad(tmp_path, gene=LABELS, batch=["b"] * 8)
    refused(path, "no column 'guide'", "'gene', 'batch'", "--perturbation-column", perturbation_column="guide")


def test_an_absent_control_shows_the_labels(tmp_path: Path):
    path = h5ad(tmp_path, gene=LABELS)
    refused(path, "no column 'perturbation', 'gene'", "'DMSO'", "--perturbation-column", control="DMSO")
    refused(path, "label 'DMSO' in column 'gene'", "'ctrl'", "--control", perturbation_column="gene", control="DMSO")


def test_another_control_beside_non_targeting_would_mix_them(tmp_path: Path):
    path = h5ad(tmp_path, gene=["non-targeting"] * 4 + ["WT"] * 4)
    refused(path, "beside 'WT'", "--where", perturbation_column="gene", control="WT")


@pytest.mark.parametrize("missing", ["", "  ", None])
def test_cells_without_a_label_are_named_and_can_be_dropped_as_said(tmp_path: Path, missing: str | None):
    path = h5ad(tmp_path, gene=[missing, *LABELS[:4], missing, missing, missing])
    refused(path, "4 cells have no label in column 'gene'", "'c0', 'c5', 'c6', ...", "--where '`gene`.notna()")
    if missing != "  ":
        report, _ = ingested(path, where='`gene`.notna() and `gene` != ""')
        assert report.n_cells == 4


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


def test_silent_cells_and_unseen_genes_are_said(tmp_path: Path):
    values = counts()
    values[3], values[:, 1:3] = 0, 0
    report, store = ingested(h5ad(tmp_path, values))
    assert store.n_cells == 8
    assert said(report, "1 in which nothing was seen")
    assert said(report, "2 never seen in these cells are kept: 'JAK2', 'IRF1'")


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
