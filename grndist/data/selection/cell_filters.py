"""Which cells of a view are kept: by their table, their genes and counts, and their perturbation labels."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from grndist.config import Config
from grndist.data.selection.gene_names import Pattern, matching
from grndist.data.selection.quality import count_shares, remaining
from grndist.data.selection.split import PARTS
from grndist.data.selection.where import holds
from grndist.data.view import SelectionError, View, kept_cells
from grndist.genes import CONTROL, NON_TARGETING, UNMAPPED, some

Share = Annotated[float, Field(ge=0, le=1)]
Part = Literal["train", "validation", "test"]


class CellsConfig(Config):
    """Which cells are kept."""

    where: str | None = Field(None, description="those for which this holds over obs, e.g. 'batch == \"b1\"'")
    min_genes: int | None = Field(None, ge=0, description="in which at least so many genes are seen")
    max_genes: int | None = Field(None, ge=0, description="in which at most so many genes are seen")
    min_counts: float | None = Field(None, ge=0, description="whose total (UMI) over all genes is at least this")
    max_counts: float | None = Field(None, ge=0, description="whose total (UMI) over all genes is at most this")
    max_share: dict[Pattern, Share] = Field(
        {}, description="pattern of gene names -> largest share of a cell's total in them, e.g. {'^MT-': 0.2}"
    )
    keep_unmapped: bool = Field(True, description="keep cells whose label is neither control nor one gene of the panel")
    min_knock_down: float | None = Field(
        None,
        gt=0,
        le=1,
        description="keep perturbations whose gene's mean is lower than in controls by this share or more, e.g. 0.3",
    )
    min_cells_per_perturbation: int = Field(0, ge=0, description="keep perturbations with so many cells left or more")
    split: tuple[Part, ...] = Field(
        ("train", "validation", "test"), min_length=1, description="cells of these parts of the store's split"
    )


def filter_cells(view: View, config: CellsConfig) -> View:
    """The cells that pass every filter but `split`, each measured in those that passed the ones before.

    Raises:
        SelectionError: a filter keeps none, or the expression does not fit the table of cells.
    """
    for one in (_where, _sizes, _shares, _mapped, _knocked_down, _large_labels):
        view = one(view, config)
    return view


def split_part(view: View, config: CellsConfig) -> View:
    """The cells of the parts of the store's split that are asked for.

    Raises:
        SelectionError: there are none.
    """
    if set(config.split) == set(PARTS):
        return view
    return kept_cells(view, view.obs["split"].isin(config.split).to_numpy(), f"cells.split {', '.join(config.split)}")


def _where(view: View, config: CellsConfig) -> View:
    if config.where is None:
        return view
    keep = holds(view.obs, config.where, view.place, "cells.where", SelectionError)
    return kept_cells(view, keep, f"cells.where {config.where!r}")


def _sizes(view: View, config: CellsConfig) -> View:
    for column, name in (("n_genes", "genes"), ("total_counts", "counts")):
        for bound, within in (("min", np.greater_equal), ("max", np.less_equal)):
            limit = getattr(config, f"{bound}_{name}")
            if limit is not None:
                keep = within(view.obs[column].to_numpy(), limit)
                view = kept_cells(view, keep, f"cells.{bound}_{name} {limit:,}")
    return view


def _shares(view: View, config: CellsConfig) -> View:
    if not config.max_share:
        return view
    chosen = np.array([matching(view.panel.names, [pattern]) for pattern in config.max_share])
    shares = count_shares(view, chosen)
    for number, (pattern, largest) in enumerate(config.max_share.items()):
        keep = shares[:, number] <= largest
        genes = f"the {int(chosen[number].sum()):,} genes that match {pattern!r}"
        view, shares = kept_cells(view, keep, f"cells.max_share {largest:g} in {genes}"), shares[keep]
    return view


def _mapped(view: View, config: CellsConfig) -> View:
    if config.keep_unmapped:
        return view
    return kept_cells(
        view, view.perturbed != UNMAPPED, "cells.keep_unmapped false (controls, or one gene of the panel)"
    )


def _knocked_down(view: View, config: CellsConfig) -> View:
    if config.min_knock_down is None:
        return view
    perturbed = view.perturbed
    if not (perturbed == CONTROL).any():
        raise SelectionError(
            f"{view.place}: cells.min_knock_down compares with control cells, but no cell left is {NON_TARGETING!r}; "
            "leave it out, or name the controls at ingest (--control)"
        )
    left = remaining(view)
    passes = left <= 1 - config.min_knock_down  # NaN does not
    columns = np.unique(perturbed[perturbed >= 0])
    failed = [view.panel.names[column] for column in columns[~passes[columns]]]
    unseen = int(np.isnan(left[columns]).sum())
    by = f"cells.min_knock_down {config.min_knock_down:g}: {_dropped(failed)}"
    by += f", {unseen} of them because no control cell shows their gene" if unseen else ""
    return kept_cells(view, (perturbed < 0) | passes[np.maximum(perturbed, 0)], by)


def _large_labels(view: View, config: CellsConfig) -> View:
    least = config.min_cells_per_perturbation
    if least == 0:
        return view
    labels = view.obs["perturbation"].astype(str)
    sizes = labels.value_counts()
    small = sorted(sizes.index[(sizes < least) & (sizes.index != NON_TARGETING)])
    by = f"cells.min_cells_per_perturbation {least}: {_dropped(small)}"
    return kept_cells(view, ~labels.isin(small).to_numpy(), by)


def _dropped(labels: list[str]) -> str:
    return f"{len(labels):,} perturbations dropped" + (f" ({some(labels)})" if labels else "")
