from pathlib import Path

import anndata
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.data.ingest.labels import meaning
from grndist.genes import GenePanel
from tests.data.ingest.ingesting import GENES, LABELS, h5ad, ingested, labels_by_cell, refused, said


def test_a_combined_label_is_never_counted_as_one_of_its_genes(tmp_path: Path):
    labels = ["NT", "STAT1+JAK2", "STAT1,JAK2", "STAT1|JAK2", "STAT1; JAK2", "STAT1+STAT1", "ctrl+JAK2", "JAK2+"]
    report, store = ingested(h5ad(tmp_path, gene=labels))
    assert report.perturbed_genes == ("STAT1", "JAK2")
    assert sum(report.combined.values()) == 5
    one_gene = store.perturbed >= 0
    assert sorted(store.obs["gene"].astype(str)[one_gene]) == ["STAT1+STAT1", "ctrl+JAK2"]


def test_labels_that_name_no_gene_are_told_from_genes_that_were_not_measured(tmp_path: Path):
    report, _ = ingested(h5ad(tmp_path, gene=["NT"] * 3 + ["JAK2", "MYC", "doublet", "N/A", "MYC"]))
    assert said(report, "others use these cells neither as control nor as perturbation): 1, 2 cells: 'MYC' (2 cells)")
    assert said(report, "labels that name no gene, used neither as control nor as perturbation: 2, 2 cells: ")


@settings(deadline=None)
@given(st.lists(st.sampled_from([*GENES, "MYC", "ctrl"]), min_size=1, max_size=3), st.sampled_from("+,|;"))
def test_what_a_label_means(parts: list[str], separator: str):
    found = meaning(separator.join(parts), ("ctrl",), GenePanel(tuple(GENES)))
    genes = set(parts) - {"ctrl"}
    expected = {0: "non-targeting", 1: next(iter(genes), "")}.get(len(genes), separator.join(parts))
    assert found == expected


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
    assert said(report, "--perturbation-column COLUMN --control LABEL (columns: 'gene', 'batch', 'source_file')")


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


def test_perturbed_cells_do_not_become_controls_when_where_drops_all_controls(tmp_path: Path):
    report, store = ingested(h5ad(tmp_path, gene=LABELS), where="gene == 'JAK2'")
    assert report.n_controls == 0
    assert set(labels_by_cell(store).values()) == {"JAK2"}
    assert said(report, "0 control, 2 with one perturbed gene")


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
