"""The cells that edges are tested on: controls, and those in which one gene, a regulator, is perturbed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.view import View
from grndist.errors import UserError
from grndist.genes import NON_TARGETING, may_be_gene, parts_of_label

MEMORY = 2**28  # bytes of values that are held at a time


class InterventionError(UserError):
    """Edges cannot be tested on these cells."""


def perturbed_genes(view: View) -> list[str]:
    """Genes, measured or not, that are the only perturbed one of some cells, in alphabetical order.

    A label that is a gene of the panel, or can be one that was not measured; not "A+B", whose effect is of both.
    """
    used = np.unique(view.label_of_cell)
    names = [view.label_names[code] for code in used.tolist()]
    return sorted(name for name in names if name != NON_TARGETING and _is_gene(name, view))


def _is_gene(label: str, view: View) -> bool:
    return label in view.panel.index or (len(parts_of_label(label)) == 1 and may_be_gene(label))


@dataclass(frozen=True, eq=False)
class Groups:
    """Control cells and the cells of every regulator; `column` puts controls first, then group after group."""

    view: View  # these cells alone
    column: Int64[np.ndarray, " cells"]
    n_controls: int
    regulators: pd.Index
    bounds: Int64[np.ndarray, " regulators_plus_1"]  # of the columns of each regulator's cells

    @property
    def sizes(self) -> Int64[np.ndarray, " regulators"]:
        """Cells of each regulator."""
        return np.diff(self.bounds)

    def blocks(
        self, genes: Int64[np.ndarray, " targets"], config: ExpressionConfig, memory: int = MEMORY
    ) -> Iterator[tuple[slice, Float32[np.ndarray, "targets cells"]]]:
        """The expression of some genes of the panel in all these cells, some genes at a time, before any z-score.

        Each part is a pass over the cells; values take about `memory` bytes, or one gene's where those are more.
        """
        size = max(memory // (4 * self.view.n_cells), 1)
        for first in range(0, len(genes), size):
            part = slice(first, min(first + size, len(genes)))
            yield part, self.values(genes[part], config)

    def values(
        self, genes: Int64[np.ndarray, " targets"], config: ExpressionConfig
    ) -> Float32[np.ndarray, "targets cells"]:
        """The expression of some genes of the panel in all these cells, controls first: one pass over them."""
        values = np.empty((len(genes), self.view.n_cells), dtype=np.float32)
        for rows, stored in self.view.whole_rows():
            found = expression(stored, self.view.totals[rows], self.view, config)
            chosen = found[:, genes] if isinstance(found, np.ndarray) else found[:, genes].toarray()
            values[:, self.column[rows]] = chosen.T
        return values


def groups_of(view: View, regulators: Iterable[str]) -> Groups:
    """The control cells of a view, and the cells of those of `regulators` that are perturbed in some.

    Raises:
        InterventionError: there are no control cells.
    """
    codes = {name: code for code, name in enumerate(view.label_names)}
    used = set(np.unique(view.label_of_cell).tolist())
    if codes.get(NON_TARGETING) not in used:
        raise InterventionError(
            f"{view.place}: none of these {view.n_cells:,} cells is a control ({NON_TARGETING!r}), so there is nothing "
            "to compare perturbed cells with; choose cells among which there are some, or name them at ingest "
            "(--control)"
        )
    names = sorted(name for name in set(regulators) - {NON_TARGETING} if codes.get(name) in used)
    group = np.full(len(codes), -1, dtype=np.int64)
    group[[codes[name] for name in [NON_TARGETING, *names]]] = np.arange(len(names) + 1)
    of_cell = group[view.label_of_cell]
    keep = of_cell >= 0
    sizes = np.bincount(of_cell[keep], minlength=len(names) + 1)
    column = np.empty(int(keep.sum()), dtype=np.int64)
    column[np.argsort(of_cell[keep], kind="stable")] = np.arange(len(column))
    labels = None if view.labels is None else view.labels[keep]
    cells = replace(view, rows=view.rows[keep], labels=labels)
    return Groups(cells, column, int(sizes[0]), pd.Index(names, dtype=object), np.cumsum(sizes).astype(np.int64))
