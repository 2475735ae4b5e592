"""Which genes of a view are kept: by cells, by name, by variability; perturbed ones come back if they are dropped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from grndist.config import Config
from grndist.data.selection.gene_names import Pattern, listed, matching
from grndist.data.selection.quality import seen
from grndist.data.selection.variable_genes import highly_variable
from grndist.data.view import View, kept_genes
from grndist.genes import some


class GenesConfig(Config):
    """Which genes are kept, and which of them may regulate."""

    min_cells: int = Field(0, ge=0, description="keep genes seen in at least so many of the cells kept")
    match: tuple[Pattern, ...] = Field((), description="keep names that match one of these patterns; none given: all")
    exclude: tuple[Pattern, ...] = Field(
        (), description="drop names that match one of these patterns, e.g. ['^MT-', '^RP[LS]']"
    )
    keep: Path | None = Field(None, description="keep genes listed in this file, one a line")
    highly_variable: int | None = Field(
        None, gt=0, description="keep so many most variable ones of those left by the filters above (scanpy's seurat)"
    )
    always_keep_perturbed: bool = Field(True, description="keep perturbed genes whatever the filters above say")
    regulators: Path | None = Field(
        None, description="genes that may regulate (transcription factors), listed in this file; null: every gene"
    )


def filter_genes(view: View, config: GenesConfig) -> View:
    """The genes that pass every filter, each measured in the view's cells, and the perturbed ones.

    Raises:
        SelectionError: a filter keeps none, or a list does not fit the store.
    """
    left = view
    for one in (_seen, _match, _exclude, _listed, _variable):
        left = one(left, config)
    return _with_perturbed(view, left, config)


def choose_regulators(view: View, config: GenesConfig) -> View:
    """The view in which only the genes listed may regulate, if a list is given.

    Raises:
        SelectionError: the list cannot be read, or none of its genes is in the view.
    """
    if config.regulators is None:
        return view
    chosen, unknown = listed(view.panel.names, config.regulators, "genes.regulators", f"the view of {view.place}")
    line = f"genes: {int(chosen.sum()):,} of {view.n_genes:,} may regulate by genes.regulators {config.regulators}"
    return replace(view, is_regulator=chosen, lines=(*view.lines, *unknown, line))


def _seen(view: View, config: GenesConfig) -> View:
    if not config.min_cells:
        return view
    return kept_genes(view, seen(view).cells >= config.min_cells, f"genes.min_cells {config.min_cells:,}")


def _match(view: View, config: GenesConfig) -> View:
    if not config.match:
        return view
    return kept_genes(view, matching(view.panel.names, config.match), f"genes.match {some(config.match, 9)}")


def _exclude(view: View, config: GenesConfig) -> View:
    if not config.exclude:
        return view
    return kept_genes(view, ~matching(view.panel.names, config.exclude), f"genes.exclude {some(config.exclude, 9)}")


def _listed(view: View, config: GenesConfig) -> View:
    if config.keep is None:
        return view
    every = view.store.panel.names
    chosen, unknown = listed(view.panel.names, config.keep, "genes.keep", view.place, every)
    view = replace(view, lines=(*view.lines, *unknown))
    return kept_genes(view, chosen, f"genes.keep {config.keep}")


def _variable(view: View, config: GenesConfig) -> View:
    n_top = config.highly_variable
    if n_top is None:
        return view
    chosen = np.ones(view.n_genes, dtype=bool) if n_top >= view.n_genes else highly_variable(view, n_top)
    return kept_genes(view, chosen, f"genes.highly_variable {n_top:,}")


def _with_perturbed(view: View, left: View, config: GenesConfig) -> View:
    """`left`, and the genes of `view` that are perturbed in some cell."""
    perturbed = np.unique(view.perturbed[view.perturbed >= 0])
    lost = np.setdiff1d(view.columns[perturbed], left.columns)
    if not len(lost):
        return left
    names = [view.store.panel.names[column] for column in lost]
    if config.always_keep_perturbed:
        line = f"genes: {len(lost):,} dropped above are kept, since they are perturbed: {some(names)}"
        return replace(left, columns=np.union1d(left.columns, lost), lines=(*left.lines, line))
    cells = int(view.obs["perturbation"].isin(names).sum())
    line = f"cells: {cells:,} of {len(lost):,} perturbations whose gene is dropped count for none: {some(names)}"
    return replace(left, lines=(*left.lines, line))
