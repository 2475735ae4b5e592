"""Which cells and genes of a store a run sees: filters one after the other, each a line of the funnel.

The order is fixed. Cells: the expression over obs, genes and counts, shares of counts, then by perturbation: one gene
of the panel, knock-down, number of cells. Genes, measured in the cells left: number of cells, patterns, list, highly
variable, perturbed ones back. Then the part of the split. CausalBench's filter, genes, split and regime, if asked for,
take the place of the filters of genes and of the split.
"""

from dataclasses import replace

import numpy as np
from pydantic import Field, model_validator

from grndist.config import Config
from grndist.data.selection.causalbench import CausalBenchConfig, causalbench
from grndist.data.selection.cell_filters import CellsConfig, filter_cells, split_part
from grndist.data.selection.gene_filters import GenesConfig, choose_regulators, filter_genes
from grndist.data.selection.library_size import median_total
from grndist.data.selection.quality import seen
from grndist.data.selection.split import PARTS
from grndist.data.store import Store
from grndist.data.view import View, whole
from grndist.genes import some


class SelectionConfig(Config):
    """What of a store a run sees."""

    cells: CellsConfig = CellsConfig()
    genes: GenesConfig = GenesConfig()
    causalbench: CausalBenchConfig | None = Field(None, description="CausalBench's own filter, genes, split and regime")

    @model_validator(mode="after")
    def _one_choice_of_genes_and_split(self) -> "SelectionConfig":
        given = self.genes.model_copy(update={"regulators": None}).model_dump(exclude_defaults=True)
        twice = [f"genes.{name}" for name in given] + ["cells.split"] * (set(self.cells.split) != set(PARTS))
        if self.causalbench is not None and twice:
            raise ValueError(f"causalbench chooses genes and split itself; remove {', '.join(twice)}, or causalbench")
        return self


def select(store: Store, config: SelectionConfig) -> View:
    """What is left of a store by all filters; the view's `lines` say what each of them kept.

    Its median total is that of the cells with counts left by the filters before the split, so that train and test agree
    on it.

    Raises:
        UserError: a filter keeps nothing, or an expression, a list or a table does not fit the store.
    """
    view = filter_cells(whole(store), config.cells)
    if config.causalbench is not None:
        view = causalbench(view, config.causalbench)
    else:
        view = replace(view, median_total=median_total(view.totals))
        view = split_part(filter_genes(view, config.genes), config.cells)
    view = choose_regulators(view, config.genes)
    return replace(view, lines=(*view.lines, *_notes(view)))


def _notes(view: View) -> list[str]:
    """Lines on what is kept but says little: genes without variance and labels of one cell."""
    notes = []
    constant = np.flatnonzero(seen(view).is_constant)
    if len(constant):
        names = [view.panel.names[column] for column in constant]
        notes.append(f"genes: {len(names):,} have the same value in all {view.n_cells:,} cells: {some(names)}")
    sizes = view.obs["perturbation"].value_counts()
    single = sorted(str(label) for label in sizes.index[sizes == 1])
    if single:
        notes.append(f"labels: {len(single):,} have one cell: {some(single)}")
    return notes
