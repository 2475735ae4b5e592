"""CausalBench's own filter, genes and split of a Perturb-seq data set, so that the same cells come out.

After Chevalley et al. 2022 (arXiv:2210.17283) and its package, version 1.1.2. The split draws cells by their position,
so the order in which the package holds them is rebuilt here from `source_row`.
"""

import random
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from pydantic import Field

from grndist.config import Config
from grndist.data.selection.quality import count_tables, own_values
from grndist.data.selection.summary_table import SummaryTableConfig, strong_perturbations
from grndist.data.view import View
from grndist.errors import UserError
from grndist.genes import NON_TARGETING, some

EXCLUDED = "excluded"  # the label of cells of all perturbations that are not among the genes
MORE_CELLS_THAN = 100  # a perturbation needs
PERCENTILE = 10  # of the raw counts of control cells: a perturbed cell may have no more of its own gene
TEST_SHARE = 0.2
LEVELS = 256  # counts told apart at first; a percentile beyond that is looked for again


class CausalBenchConfig(Config):
    """CausalBench's data set, split and training regime."""

    summary: SummaryTableConfig | None = Field(
        None, description="keep strong perturbations and cells that are knocked down; null: all (its default)"
    )
    symbol_column: str | None = Field(
        None,
        description="column of obs with the perturbed genes' symbols; null: 'gene' if there is one, else the labels",
    )
    gene_name_column: str | None = Field(
        None, description="column of var with the genes' symbols; null: 'gene_name' if there is one, else the panel"
    )
    split: Literal["train", "test"] = Field("train", description="80 % or 20 % of the cells of every label")
    subset_data: float = Field(1.0, gt=0, le=1, description="share of the training cells that is used")
    regime: Literal["observational", "partial", "full"] = Field(
        "full", description="training labels beside the controls: none, a share of them, or all"
    )
    fraction: float = Field(0.5, ge=0, le=1, description="of the labels, with regime partial")
    seed: int = Field(0, ge=0, description="of the choice of labels, with regime partial")


class Cells(NamedTuple):
    """Cells of a view in the package's order."""

    at: Int64[np.ndarray, " cells"]  # rows of the view
    labels: Int64[np.ndarray, " cells"]  # codes

    def taken(self, chosen: np.ndarray) -> "Cells":
        """Some of them, by position or by truth."""
        return Cells(self.at[chosen], self.labels[chosen])


def causalbench(view: View, config: CausalBenchConfig) -> View:
    """The cells, labels and genes CausalBench would use; the rows ascend, whatever its order.

    In its order: strong perturbations, then cells whose raw count of their own gene is at most the 10th percentile of
    control cells (perturbations of genes that are not measured keep all), cells without counts dropped, perturbations
    with more than 100 cells as genes and every other cell labelled "excluded", 80/20 split, regime. The median total is
    that of the cells before the split, as in the package.

    Args:
        view: cells of a store of raw counts, with all its genes.
        config: what to do.

    Raises:
        UserError: the store holds no counts, the table or a column is not as needed, or nothing is left.
    """
    if view.state != "counts":
        raise UserError(
            f"{view.place}: causalbench needs raw counts, but the store's state is {view.state}; ingest the counts"
        )
    symbols = _symbols(view, config.symbol_column)
    order = np.argsort(view.obs["source_row"].to_numpy(), kind="stable")
    lines = [f"causalbench: symbols of perturbed genes from {symbols.name}"]
    if config.summary is not None:
        order = _strong(view, order, symbols, config.summary, lines)
        order = _knocked_down(view, order, symbols, config.gene_name_column, lines)
    order = _kept(order, view.totals[order] >= 1, "with counts", lines)
    columns, labels = _relabelled(view, order, lines)
    median_total = float(np.median(view.totals[order]))
    cells = _divided(view, Cells(order, labels.codes.astype(np.int64)), list(labels.categories), config, lines)
    cells = cells.taken(np.argsort(cells.at))
    return replace(
        view,
        rows=view.rows[cells.at],
        columns=view.columns[columns],
        median_total=median_total,
        lines=(*view.lines, *lines),
        labels=pd.Categorical.from_codes(cells.labels, categories=labels.categories),
    )


class Symbols(NamedTuple):
    """The symbol of the gene perturbed in each cell, "non-targeting" in controls."""

    name: str  # where they are from
    per_cell: np.ndarray


def _symbols(view: View, column: str | None) -> Symbols:
    labels = view.obs["perturbation"].astype(str).to_numpy(dtype=object)
    if column is None and "gene" not in view.obs:
        return Symbols("the labels", labels)
    column = column or "gene"
    if column not in view.obs:
        raise UserError(
            f"{view.place}: causalbench.symbol_column is {column!r}, but the table of cells has the columns "
            f"{some(list(view.obs.columns), 20)}; choose one of them"
        )
    found = view.obs[column].astype(str).to_numpy(dtype=object)
    return Symbols(f"obs column {column!r}", np.where(labels == NON_TARGETING, NON_TARGETING, found))


def _gene_names(view: View, column: str | None) -> list[str]:
    if column is None and "gene_name" not in view.var:
        return list(view.panel.names)
    column = column or "gene_name"
    if column not in view.var:
        raise UserError(
            f"{view.place}: causalbench.gene_name_column is {column!r}, but the table of genes has the columns "
            f"{some(list(view.var.columns), 20)}; choose one of them"
        )
    return [str(name) for name in view.var[column]]


def _kept(order: np.ndarray, keep: np.ndarray, why: str, lines: list[str]) -> np.ndarray:
    lines.append(f"cells: {int(keep.sum()):,} of {len(order):,} kept by causalbench: {why}")
    return order[keep]


def _strong(
    view: View, order: np.ndarray, symbols: Symbols, config: SummaryTableConfig, lines: list[str]
) -> np.ndarray:
    strong = strong_perturbations(config)
    keep = pd.Series(symbols.per_cell[order]).isin([*strong, NON_TARGETING]).to_numpy()
    present = set(symbols.per_cell[order[keep]]) - {NON_TARGETING}
    if not present:
        raise UserError(
            f"{config.file}: none of its {len(strong)} strong perturbations ({some(strong)}) is in {view.place}, whose "
            f"symbols ({symbols.name}) are like {some(sorted(set(symbols.per_cell)))}; choose causalbench.symbol_column"
        )
    return _kept(order, keep, f"{len(present)} of {len(strong)} strong perturbations and the controls", lines)


def _knocked_down(view: View, order: np.ndarray, symbols: Symbols, column: str | None, lines: list[str]) -> np.ndarray:
    """Group after group in order of appearance, and of each those cells whose own gene is knocked down."""
    groups, names = pd.factorize(symbols.per_cell[order])
    first_column: dict[str, int] = {}
    for number, name in enumerate(_gene_names(view, column)):
        first_column.setdefault(name, number)
    own = np.array([-1 if name == NON_TARGETING else first_column.get(name, -1) for name in names], dtype=np.int64)
    controls = np.zeros(view.n_cells, dtype=bool)
    controls[order] = names[groups] == NON_TARGETING
    if controls.any():
        limit = np.full(len(names), np.inf)
        limit[own >= 0] = _percentiles(view, controls, own[own >= 0])
    else:
        own[:], limit = -1, np.full(len(names), np.inf)
    own_column = np.full(view.n_cells, -1)
    own_column[order] = own[groups]
    keep = own_values(view, own_column)[order] <= limit[groups]
    grouped = np.argsort(groups, kind="stable")
    unmeasured = sorted(name for name, at in zip(names, own, strict=True) if at < 0 and name != NON_TARGETING)
    why = f"their own gene's count is at most the {PERCENTILE}th percentile of controls"
    if unmeasured:
        why += f" ({len(unmeasured)} perturbations keep all, as it cannot be told: {some(unmeasured)})"
    return _kept(order[grouped], keep[grouped], why, lines)


def _percentiles(
    view: View, controls: np.ndarray, columns: Int64[np.ndarray, " columns"]
) -> Float[np.ndarray, " columns"]:
    """The 10th percentile of each gene's counts in control cells, by NumPy's rule on float32 as in the package."""
    limit = np.empty(len(columns))
    n_controls = int(controls.sum())
    needed = min((n_controls - 1) * PERCENTILE // 100 + 2, n_controls)  # smallest counts that the percentile is made of
    levels, pending = LEVELS, np.arange(len(columns))
    while len(pending):
        tables = count_tables(view, controls, columns[pending], levels)
        counts = np.arange(levels, dtype=np.float32)
        limit[pending] = [np.percentile(np.repeat(counts, table), PERCENTILE) for table in tables]
        pending = pending[n_controls - tables[:, -1] < needed]  # the last level lumps some of them together
        levels *= 16
    return limit


def _relabelled(view: View, order: np.ndarray, lines: list[str]) -> tuple[np.ndarray, pd.Categorical]:
    """Columns of genes perturbed in more than 100 cells, and the label of each cell of `order`."""
    labels = view.obs["perturbation"].astype(str).to_numpy(dtype=object)[order]
    sizes = pd.Series(labels).value_counts()
    large = {str(label) for label in sizes.index[sizes > MORE_CELLS_THAN]}
    columns = np.array([at for at, name in enumerate(view.panel.names) if name in large], dtype=np.int64)
    if not len(columns):
        raise UserError(
            f"{view.place}: causalbench needs perturbations of measured genes with more than {MORE_CELLS_THAN} cells, "
            f"but the largest labels are {some([f'{label} ({n} cells)' for label, n in sizes.items()])} and the genes "
            f"are like {some(view.panel.names)}; ingest with labels and genes of one kind (--perturbation-column)"
        )
    kept = [NON_TARGETING] * (NON_TARGETING in large) + [view.panel.names[at] for at in columns]
    why = f"perturbed in more than {MORE_CELLS_THAN} cells"
    lines.append(f"genes: {len(columns):,} of {view.n_genes:,} kept by causalbench: {why}")
    if NON_TARGETING not in large:
        lines.append(
            f"labels: with {int(sizes.get(NON_TARGETING, 0))} cells, controls are {EXCLUDED!r} too, as in CausalBench"
        )
    relabelled = np.where(pd.Series(labels).isin(kept), labels, EXCLUDED)
    others = relabelled == EXCLUDED
    lines.append(f"labels: {int(others.sum()):,} cells of {len(sizes) - len(kept):,} other labels are {EXCLUDED!r}")
    return columns, pd.Categorical(relabelled)


def _divided(view: View, cells: Cells, names: list[str], config: CausalBenchConfig, lines: list[str]) -> Cells:
    """The cells of the split and regime, in the package's order."""
    before = len(cells.at)
    train, test = _stratified(view, cells, test_size=TEST_SHARE)
    what = f"test ({100 * TEST_SHARE:.0f} % of every label)"
    if config.split == "train":
        if config.subset_data < 1:
            train, _ = _stratified(view, train, train_size=config.subset_data)
        train, regime = _regime(train, names, config)
        what = f"train ({100 * (1 - TEST_SHARE):.0f} % of every label), share {config.subset_data:g} of it, {regime}"
    chosen = train if config.split == "train" else test
    if not len(chosen.at):
        raise UserError(f"{view.place}: causalbench: no cell is left in {what}; choose another regime")
    lines.append(f"cells: {len(chosen.at):,} of {before:,} kept by causalbench: {what}")
    return chosen


def _stratified(view: View, cells: Cells, **size: float) -> tuple[Cells, Cells]:
    from sklearn.model_selection import train_test_split

    count = len(cells.at)  # codes of sorted labels divide as the labels themselves would
    try:
        train, test = train_test_split(np.arange(count), random_state=0, stratify=cells.labels, **size)
    except ValueError as error:
        raise UserError(
            f"{view.place}: causalbench cannot divide its {count} cells of {len(np.unique(cells.labels))} labels "
            f"({error}); every label needs two cells or more"
        ) from error
    return cells.taken(train), cells.taken(test)


def _regime(train: Cells, names: list[str], config: CausalBenchConfig) -> tuple[Cells, str]:
    """Cells of the controls and of the labels drawn. "excluded" and the controls are drawn from as well."""
    labels = list(pd.unique(np.array(names, dtype=object)[train.labels]))  # in order of appearance
    fraction = {"observational": 0.0, "partial": config.fraction, "full": 1.0}[config.regime]
    drawn = random.Random(config.seed).sample(labels, int(fraction * len(labels)))
    known = np.isin(train.labels, [names.index(label) for label in {*drawn, NON_TARGETING} & set(names)])
    words = f"regime {config.regime}: {len(drawn)} of {len(labels)} labels"
    if config.regime == "partial":
        words += f" (fraction {config.fraction:g}, seed {config.seed})"
    return train.taken(known), words
