from pathlib import Path

import anndata
import numpy as np
import pytest
import scanpy as sc

from grndist.config import ConfigError, validate
from grndist.data.ingest.build import write_store
from grndist.data.selection import SelectionConfig, select
from grndist.data.selection.causalbench import CausalBenchConfig, causalbench
from grndist.data.selection.cell_filters import CellsConfig
from grndist.data.selection.gene_filters import GenesConfig
from grndist.data.selection.variable_genes import highly_variable
from grndist.data.store import Store, open_store
from grndist.data.view import SelectionError, View, whole
from grndist.genes import CONTROL, NON_TARGETING, UNMAPPED
from tests.data.selection.selecting import dense, names, perturb_seq, perturb_seq_store, said


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return perturb_seq_store(tmp_path_factory.mktemp("large"))


def cells(store: Store, **options: object) -> View:
    return select(store, SelectionConfig(cells=CellsConfig(**options)))  # type: ignore[arg-type]


def genes(store: Store, **options: object) -> View:
    return select(store, SelectionConfig(genes=GenesConfig(**options)))  # type: ignore[arg-type]


def listing(folder: Path, *lines: str) -> Path:
    (folder / "genes.txt").write_text("\n".join(lines))
    return folder / "genes.txt"


def test_nothing_asked_is_everything(large: Store):
    view = select(large, SelectionConfig())
    assert view.digest == whole(large).digest
    assert view.lines == ("genes: 1 have the same value in all 1,430 cells: 'ENSGS39'",)


# --- cells ---


def test_cells_by_genes_and_counts_are_those_scanpy_keeps(large: Store):
    view = cells(large, min_genes=12, max_genes=20, min_counts=20, max_counts=60.5)
    data = anndata.AnnData(dense(whole(large)).astype(np.float32), obs=large.obs[[]].copy())
    sc.pp.filter_cells(data, min_genes=12)
    sc.pp.filter_cells(data, max_genes=20)
    sc.pp.filter_cells(data, min_counts=20)
    sc.pp.filter_cells(data, max_counts=60.5)
    assert 0 < data.n_obs < large.n_cells
    assert names(view) == list(data.obs_names)
    assert [line.split(" kept by ")[1] for line in view.lines[:4]] == [
        "cells.min_genes 12", "cells.max_genes 20", "cells.min_counts 20.0", "cells.max_counts 60.5"
    ]  # fmt: skip


def test_cells_by_shares_of_counts(large: Store):
    view = cells(large, max_share={"S1[0-4]$": 0.3, "S3$": 0.5, "^MT-": 0.1})
    every = dense(whole(large)).astype(float)
    total = np.maximum(every.sum(1), 1)
    keep = (every[:, 10:15].sum(1) / total <= 0.3) & (every[:, 3] / total <= 0.5)
    assert np.array_equal(view.rows, np.flatnonzero(keep))
    assert 0 < keep.sum() < large.n_cells
    assert said(view, "kept by cells.max_share 0.3 in the 5 genes that match 'S1[0-4]$'")
    assert said(view, "kept by cells.max_share 0.1 in the 0 genes that match '^MT-'")


def test_cells_by_an_expression(large: Store):
    view = cells(large, where="batch == 'b1' and total_counts > 30")
    wanted = (large.obs["batch"] == "b1") & (large.obs["total_counts"] > 30)
    assert np.array_equal(view.rows, np.flatnonzero(wanted))
    assert said(view, "kept by cells.where \"batch == 'b1' and total_counts > 30\"")


def test_cells_of_unmapped_labels_can_be_dropped(large: Store):
    view = cells(large, keep_unmapped=False)
    assert np.array_equal(view.rows, np.flatnonzero(large.perturbed != UNMAPPED))
    assert view.n_cells == large.n_cells - 150


def test_perturbations_that_are_not_knocked_down_are_dropped(large: Store):
    view = cells(large, min_knock_down=0.3)
    values = dense(whole(large)) / np.maximum(large.totals, 1)[:, None]
    labels = large.obs["perturbation"].astype(str).to_numpy()
    for label in set(labels) - {NON_TARGETING, "ENSGOUT"}:
        own = large.panel.index[label]
        left = values[labels == label, own].mean() / values[labels == NON_TARGETING, own].mean()
        assert (label in set(view.obs["perturbation"])) == (left <= 0.7)
    assert said(view, "kept by cells.min_knock_down 0.3: 1 perturbations dropped ('ENSGS12')")
    assert {NON_TARGETING, "ENSGOUT"} <= set(view.obs["perturbation"])


def test_a_gene_that_no_control_shows_cannot_be_judged(tmp_path: Path):
    counts, obs, var = perturb_seq()
    values = counts.toarray()
    values[(obs["gene"] == NON_TARGETING).to_numpy(), 7] = 0
    write_store(tmp_path / "p.zarr", type(counts)(values), obs, var, "counts", {})
    view = cells(open_store(tmp_path / "p.zarr"), min_knock_down=0.3)
    assert said(view, "dropped ('ENSGS7', 'ENSGS12'), 1 of them because no control cell shows their gene")


def test_small_perturbations_are_dropped_but_never_controls(large: Store):
    view = cells(large, min_cells_per_perturbation=150)
    kept = {NON_TARGETING, "ENSGS0", "ENSGS3", "ENSGS7", "ENSGOUT"}
    assert set(view.obs["perturbation"]) == kept
    assert said(view, "3 perturbations dropped ('ENSGS12', 'ENSGS30', 'ENSGS31')")
    few = cells(large, where="perturbation != 'non-targeting' or batch == 'b1'", min_cells_per_perturbation=240)
    assert (few.perturbed == CONTROL).any()


def test_labels_with_one_cell_are_named(large: Store):
    one = large.obs.index[large.obs["perturbation"] == "ENSGS30"][0]
    view = cells(large, where=f"perturbation != 'ENSGS30' or index == '{one}'")
    assert said(view, "labels: 1 have one cell: 'ENSGS30'")


def test_genes_that_do_not_vary_in_the_cells_kept_are_named(large: Store):
    view = cells(large, where="total_counts == 0")
    assert said(view, "genes: 40 have the same value in all 3 cells: 'ENSGS0', 'ENSGS1', 'ENSGS2', ...")


def test_parts_of_the_split(large: Store):
    train, rest = cells(large, split=["train"]), cells(large, split=["validation", "test"])
    assert np.array_equal(train.rows, np.flatnonzero(large.obs["split"] == "train"))
    assert np.array_equal(np.sort(np.concatenate([train.rows, rest.rows])), np.arange(large.n_cells))
    assert said(rest, "kept by cells.split validation, test")
    assert not said(cells(large), "split")


def test_the_median_total_does_not_depend_on_the_split(large: Store):
    parts = [cells(large, min_genes=10, split=[part]).median_total for part in ("train", "validation", "test")]
    assert set(parts) == {np.median(large.totals[large.obs["n_genes"] >= 10])}


# --- genes ---


def test_genes_by_the_cells_that_are_kept(large: Store):
    config = SelectionConfig(
        cells=CellsConfig(where="batch == 'b1'"), genes=GenesConfig(min_cells=300, always_keep_perturbed=False)
    )
    view = select(large, config)
    data = anndata.AnnData(dense(whole(large))[(large.obs["batch"] == "b1").to_numpy()])
    sc.pp.filter_genes(data, min_cells=300)
    assert view.columns.tolist() == [int(name) for name in data.var_names]
    assert 0 < view.n_genes < large.n_genes


def test_genes_by_patterns(large: Store):
    view = genes(large, match=["S1", "S2"], exclude=["[5-9]$"], always_keep_perturbed=False)
    assert list(view.panel.names) == [f"ENSGS{n}" for n in [1, 2, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24]]
    assert view.lines[:2] == (
        "genes: 22 of 40 kept by genes.match 'S1', 'S2'",
        "genes: 12 of 22 kept by genes.exclude '[5-9]$'",
    )


def test_perturbed_genes_come_back(large: Store):
    view = genes(large, match=["S1$"])
    assert list(view.panel.names) == [f"ENSGS{n}" for n in (0, 1, 3, 7, 12, 30, 31)]
    assert said(view, "genes: 6 dropped above are kept, since they are perturbed: 'ENSGS0', 'ENSGS3', 'ENSGS7', ...")
    strict = genes(large, match=["S1$"], always_keep_perturbed=False)
    assert list(strict.panel.names) == ["ENSGS1"]
    assert said(strict, "cells: 880 of 6 perturbations whose gene is dropped count for none: 'ENSGS0'")
    assert set(strict.perturbed) == {CONTROL, UNMAPPED}


def test_genes_of_a_list(large: Store, tmp_path: Path):
    file = listing(tmp_path, "ENSGS5", "ENSGS0", "GATA1")
    view = genes(large, keep=file, always_keep_perturbed=False)
    assert list(view.panel.names) == ["ENSGS0", "ENSGS5"]
    assert said(view, f"genes: 1 of 3 names in {file} are not there: 'GATA1'")


def test_variable_genes_are_of_those_left_and_perturbed_ones_are_added(large: Store):
    view = genes(large, exclude=["S2"], highly_variable=8)
    before = genes(large, exclude=["S2"], always_keep_perturbed=False)
    chosen = before.columns[highly_variable(before, 8)]
    assert np.array_equal(view.columns, np.union1d(chosen, np.unique(large.perturbed[large.perturbed >= 0])))
    assert genes(large, highly_variable=40).n_genes == 40


def test_regulators_are_of_the_genes_left(large: Store, tmp_path: Path):
    file = listing(tmp_path, "ENSGS5", "ENSGS0", "ENSGS9", "GATA1")
    view = genes(large, exclude=["S9$"], regulators=file)
    assert view.panel.is_regulator is not None
    assert [view.panel.names[at] for at in np.flatnonzero(view.panel.is_regulator)] == ["ENSGS0", "ENSGS5"]
    assert said(view, f"genes: 2 of 39 may regulate by genes.regulators {file}")
    assert said(view, f"genes: 2 of 4 names in {file} are not there: 'ENSGS9', 'GATA1'")


# --- all together ---


def test_the_order_of_filters_is_fixed(large: Store):
    config = SelectionConfig(
        genes=GenesConfig(highly_variable=20, exclude=["S39"], min_cells=3, match=["S"]),
        cells=CellsConfig(
            split=["train"], min_cells_per_perturbation=50, min_knock_down=0.1, keep_unmapped=False,
            max_share={"S3$": 0.9}, max_counts=1e4, min_genes=2, where="batch == 'b1'",
        ),
    )  # fmt: skip
    lines = select(large, config).lines
    steps = ["where", "min_genes", "max_counts", "max_share", "keep_unmapped", "min_knock_down"]
    steps += ["min_cells_per_perturbation", "min_cells ", "match", "exclude", "highly_variable", "split"]
    at = [next(number for number, line in enumerate(lines) if f".{step}" in line) for step in steps]
    assert at == sorted(at)
    assert len(set(at)) == len(steps)


def test_causalbench_takes_the_place_of_genes_and_split(large: Store):
    view = select(large, SelectionConfig(causalbench=CausalBenchConfig(split="test")))
    assert view.digest == causalbench(whole(large), CausalBenchConfig(split="test")).digest
    filtered = select(large, SelectionConfig(cells=CellsConfig(where="batch == 'b1'"), causalbench=CausalBenchConfig()))
    assert set(filtered.obs["batch"]) == {"b1"}


def test_causalbench_is_not_mixed_with_other_choices_of_genes_and_split(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"remove genes.min_cells, cells.split, or causalbench"):
        validate(
            SelectionConfig, {"causalbench": {}, "genes": {"min_cells": 3}, "cells": {"split": ["test"]}}, "run.yaml"
        )
    with_regulators = {"causalbench": {}, "genes": {"regulators": str(tmp_path / "tfs.txt")}}
    assert validate(SelectionConfig, with_regulators, "run.yaml").causalbench is not None


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"cells": {"max_share": {"^MT(": 0.2}}}, "is no regular expression"),
        ({"genes": {"exclude": ["*"]}}, r"genes.exclude.0: .*is no regular expression"),
        ({"cells": {"split": ["training"]}}, "cells.split"),
        ({"cells": {"min_gene": 3}}, "cells.min_gene: unknown key; did you mean 'cells.min_genes'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tree: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        validate(SelectionConfig, tree, "run.yaml")


@pytest.mark.parametrize(
    ("section", "options", "words"),
    [
        ("cells", {"min_genes": 41}, "cells.min_genes 41 keeps none of the 1,430 cells left by then; loosen it"),
        ("cells", {"where": "bach == 'b1'"}, "cells.where .*'bach' is not defined; its columns are"),
        ("cells", {"where": "batch == 'b3'"}, "keeps none"),
        ("cells", {"where": "perturbation == 'ENSGS3'", "min_knock_down": 0.3}, "no cell left is 'non-targeting'"),
        ("genes", {"match": ["^MT-"]}, "genes.match '\\^MT-' keeps none of the 40 genes left by then"),
        ("genes", {"min_cells": 1500}, "keeps none of the 40 genes"),
    ],
)
def test_filters_that_leave_nothing_are_refused(large: Store, section: str, options: dict, words: str):
    with pytest.raises(SelectionError, match=words):
        {"cells": cells, "genes": genes}[section](large, **options)


def test_lists_that_do_not_fit_are_refused(large: Store, tmp_path: Path):
    file = listing(tmp_path, "GATA1", "JAK2")
    for setting in ("keep", "regulators"):
        with pytest.raises(SelectionError, match=r"none of its 2 genes .*use names of one kind"):
            genes(large, **{setting: file})
