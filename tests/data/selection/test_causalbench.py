"""CausalBench's choice of cells against a plain transcription of its package (causalscbench 1.1.2, data_access)."""

import random
from functools import cache
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from sklearn.model_selection import train_test_split

from grndist.data.ingest.build import write_store
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.selection.causalbench import CausalBenchConfig, causalbench
from grndist.data.selection.summary_table import SummaryTableConfig
from grndist.data.store import open_store
from grndist.data.view import View, whole
from grndist.errors import UserError
from grndist.genes import CONTROL, NON_TARGETING, UNMAPPED
from tests.data.selection.selecting import N_GENES, dense, names, perturb_seq, perturb_seq_store, said, summary_table


class Theirs(NamedTuple):
    names: list[str]
    labels: list[str]
    genes: list[str]
    values: np.ndarray


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> View:
    return whole(perturb_seq_store(tmp_path_factory.mktemp("large")))


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return summary_table(tmp_path_factory.mktemp("summary"))


@cache
def preprocessed(summary: Path | None, seed: int = 0) -> Theirs:
    counts, obs, var = perturb_seq(seed)
    data = anndata.AnnData(counts.toarray().astype(np.float32), obs=obs, var=var)
    if summary is not None:
        table = pd.read_csv(summary)
        strong = [
            row["genetic perturbation"].split("_")[1]
            for _, row in table.iterrows()
            if row["Number of DEGs (anderson-darling)"] > 50
            and row["percent knockdown"] <= -0.3
            and row["number of cells (filtered)"] > 25
        ]
        data = data[[gene in [*strong, NON_TARGETING] for gene in data.obs["gene"]]]
        chosen: list[str] = []
        for gene in data.obs["gene"].unique():
            group = data[data.obs["gene"] == gene]
            if gene == NON_TARGETING or gene not in set(data.var["gene_name"]):
                chosen += list(group.obs_names)
                continue
            at = list(data.var["gene_name"]).index(gene)
            limit = np.percentile(data.X[(data.obs["gene"] == NON_TARGETING).to_numpy(), at], 10)
            chosen += list(group.obs_names[group.X[:, at] <= limit])
        data = data[chosen]
    data = data[data.X.sum(1) >= 1].copy()
    sc.pp.normalize_total(data)
    sc.pp.log1p(data)
    labels = list(data.obs["perturbation"])
    large = {label for label in labels if label in {*data.var_names, NON_TARGETING} and labels.count(label) > 100}
    genes = [name for name in data.var_names if name in large]
    labels = [label if label in large else "excluded" for label in labels]
    return Theirs(list(data.obs_names), labels, genes, data[:, genes].X)


def divided(data: Theirs, split: str, subset: float = 1.0, fraction: float = 1.0, seed: int = 0) -> Theirs:
    at = np.arange(len(data.labels))
    train, test, labels, _ = train_test_split(at, data.labels, test_size=0.2, random_state=0, stratify=data.labels)
    if split == "test":
        return taken(data, test)
    if subset < 1:
        train, _, labels, _ = train_test_split(train, labels, train_size=subset, random_state=0, stratify=labels)
    different = list(dict.fromkeys(labels))
    random.seed(seed)
    kept = {*random.sample(different, int(fraction * len(different))), NON_TARGETING}
    return taken(data, [cell for cell, label in zip(train, labels, strict=True) if label in kept])


def taken(data: Theirs, at: list[int]) -> Theirs:
    return Theirs([data.names[i] for i in at], [data.labels[i] for i in at], data.genes, data.values[at])


def same(view: View, theirs: Theirs) -> None:
    """The same cells, labels, genes and normalised values, whatever the order of the cells."""
    assert (np.diff(view.rows) > 0).all()
    assert list(view.panel.names) == theirs.genes
    assert sorted(names(view)) == sorted(theirs.names)
    at = pd.Series(np.arange(view.n_cells), names(view))[theirs.names].to_numpy()
    assert [str(label) for label in view.obs["perturbation"].iloc[at]] == theirs.labels
    (_, values), *_ = view.whole_rows(view.n_cells)
    found = expression(values, view.totals, view, ExpressionConfig()).toarray()
    np.testing.assert_allclose(found[at], theirs.values, rtol=2e-6)


@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
@pytest.mark.parametrize(
    ("options", "split"),
    [
        ({"split": "test"}, {"split": "test"}),
        ({"regime": "full"}, {"split": "train"}),
        ({"regime": "observational"}, {"split": "train", "fraction": 0.0}),
        ({"regime": "partial", "fraction": 0.5, "seed": 3}, {"split": "train", "fraction": 0.5, "seed": 3}),
        ({"subset_data": 0.4}, {"split": "train", "subset": 0.4}),
    ],
    ids=["test", "full", "observational", "partial", "subset"],
)
def test_the_same_cells_and_values_come_out(large: View, summary: Path, filtered: bool, options: dict, split: dict):
    config = CausalBenchConfig(summary=SummaryTableConfig(file=summary) if filtered else None, **options)
    same(causalbench(large, config), divided(preprocessed(summary if filtered else None), **split))


@pytest.mark.parametrize("seed", range(1, 4))
def test_partial_regimes_draw_the_same_labels_for_any_data_and_order(tmp_path: Path, summary: Path, seed: int):
    store = perturb_seq_store(tmp_path, seed, shuffle_seed=seed)
    config = CausalBenchConfig(
        summary=SummaryTableConfig(file=summary), regime="partial", fraction=0.75, seed=seed, subset_data=0.6
    )
    wanted = divided(preprocessed(summary, seed), "train", 0.6, 0.75, seed)
    same(causalbench(whole(store), config), wanted)


def test_labels_tell_controls_genes_and_excluded_cells(large: View):
    view = causalbench(large, CausalBenchConfig(split="test"))
    labels = view.obs["perturbation"].astype(str).to_numpy()
    assert set(labels) == {NON_TARGETING, "excluded", *view.panel.names}
    assert (view.perturbed[labels == NON_TARGETING] == CONTROL).all()
    assert (view.perturbed[labels == "excluded"] == UNMAPPED).all()
    assert (view.perturbed[labels == "ENSGS7"] == view.panel.index["ENSGS7"]).all()
    assert np.array_equal(view.obs["is_control"], labels == NON_TARGETING)
    assert np.array_equal(dense(view).sum(0) > 0, np.ones(view.n_genes))


def test_every_step_is_said(large: View, summary: Path):
    view = causalbench(large, CausalBenchConfig(summary=SummaryTableConfig(file=summary)))
    assert said(view, "symbols of perturbed genes from obs column 'gene'")
    assert said(view, "cells: 1,050 of 1,430 kept by causalbench: 4 of 4 strong perturbations and the controls")
    assert said(view, "10th percentile of controls")
    assert said(view, "kept by causalbench: with counts")
    assert said(view, f"of {N_GENES} kept by causalbench: perturbed in more than 100 cells")
    assert said(view, "are 'excluded'")
    assert said(view, "train (80 % of every label), share 1 of it, regime full")


def test_the_median_total_is_that_of_the_cells_before_the_split(large: View):
    train, test = (causalbench(large, CausalBenchConfig(split=part)) for part in ("train", "test"))
    assert train.median_total == test.median_total == np.median(large.totals[large.totals > 0])
    assert np.array_equal(np.union1d(train.rows, test.rows), np.flatnonzero(large.totals > 0))


def test_percentiles_of_large_counts_are_exact(tmp_path: Path, summary: Path):
    """Beyond the counts that are told apart at first."""
    counts, obs, var = perturb_seq()
    write_store(tmp_path / "p.zarr", counts * 331, obs, var, "counts", {})
    config = CausalBenchConfig(summary=SummaryTableConfig(file=summary), split="test")
    found = causalbench(whole(open_store(tmp_path / "p.zarr")), config)
    wanted = divided(preprocessed(summary), "test")
    assert sorted(names(found)) == sorted(wanted.names)


def test_few_controls_are_excluded_and_that_is_said(tmp_path: Path):
    counts, obs, var = perturb_seq()
    few = np.flatnonzero((obs["gene"] != NON_TARGETING) | (np.cumsum(obs["gene"] == NON_TARGETING) <= 90))
    write_store(tmp_path / "p.zarr", counts[few], obs.iloc[few], var, "counts", {})
    view = causalbench(whole(open_store(tmp_path / "p.zarr")), CausalBenchConfig())
    assert not (view.perturbed == CONTROL).any()
    assert said(view, "controls are 'excluded' too")


# --- failures ---


def refused(view: View, words: str, **options: object) -> None:
    with pytest.raises(UserError, match=words):
        causalbench(view, CausalBenchConfig(**options))  # type: ignore[arg-type]


def test_values_that_are_no_counts_are_refused(tmp_path: Path):
    counts, obs, var = perturb_seq()
    write_store(tmp_path / "p.zarr", counts * 0.5, obs, var, "log1p", {})
    refused(whole(open_store(tmp_path / "p.zarr")), "needs raw counts, but the store's state is log1p")


def test_unknown_columns_are_named(large: View, summary: Path):
    table = SummaryTableConfig(file=summary)
    refused(large, r"symbol_column is 'nope', but the table of cells has the columns .*'batch'", symbol_column="nope")
    refused(large, "gene_name_column is 'nope'", summary=table, gene_name_column="nope")


def test_symbols_of_another_kind_are_noticed(large: View, summary: Path):
    refused(
        large,
        "none of its 4 strong perturbations .*choose causalbench.symbol_column",
        summary=SummaryTableConfig(file=summary),
        symbol_column="perturbation",
    )


def test_too_few_cells_are_refused(tmp_path: Path):
    counts, obs, var = perturb_seq()
    write_store(tmp_path / "p.zarr", counts[:300], obs.iloc[:300], var, "counts", {})
    refused(whole(open_store(tmp_path / "p.zarr")), "perturbations of measured genes with more than 100 cells")


def test_a_label_of_one_cell_cannot_be_divided(tmp_path: Path):
    counts, obs, var = perturb_seq()
    large = obs["gene"].isin([NON_TARGETING, "S3", "S0", "S7", "S12"])
    one = np.flatnonzero(large | (np.arange(len(obs)) == np.flatnonzero(obs["gene"] == "OUT")[0]))
    write_store(tmp_path / "p.zarr", counts[one], obs.iloc[one], var, "counts", {})
    refused(whole(open_store(tmp_path / "p.zarr")), "every label needs two cells or more")
