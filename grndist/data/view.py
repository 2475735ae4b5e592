"""What of a store a run sees: some of its cells and genes, by number. Nothing is copied and nothing is read here.

`whole` is the view of everything; `selection.select` makes any other. A cell's library size is that of all its genes,
whatever genes a view has.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from scipy import sparse

from grndist.data.store import BLOCK, State, Store, perturbed_columns
from grndist.errors import UserError
from grndist.genes import NON_TARGETING, GenePanel

Block = tuple[slice, sparse.csr_matrix]


class SelectionError(UserError):
    """A filter keeps nothing, or asks for what the store does not have."""


@dataclass(frozen=True, eq=False)
class View:
    """Cells `rows` and genes `columns` of a store, both ascending."""

    store: Store
    rows: Int64[np.ndarray, " cells"]
    columns: Int64[np.ndarray, " genes"]
    median_total: float  # over the cells that the filters keep, before a split or regime takes some of them
    lines: tuple[str, ...] = ()  # the funnel in words: what each filter kept
    is_regulator: Bool[np.ndarray, " genes"] | None = None  # None: every gene may regulate
    labels: pd.Categorical | None = None  # of its cells, in place of the store's

    @property
    def n_cells(self) -> int:
        """Number of cells (rows)."""
        return len(self.rows)

    @property
    def n_genes(self) -> int:
        """Number of genes (columns)."""
        return len(self.columns)

    @property
    def state(self) -> State:
        """What the store's values are."""
        return self.store.state

    @property
    def place(self) -> str:
        """The store, for messages."""
        return self.store.url

    @cached_property
    def panel(self) -> GenePanel:
        """Its genes, and which of them may regulate."""
        names = self.store.panel.names
        return GenePanel(tuple(names[column] for column in self.columns), self.is_regulator)

    @cached_property
    def digest(self) -> str:
        """A digest of what a run sees: the store, its cells, genes, labels and regulators, and the median total."""
        found = hashlib.sha256(self.store.digest.encode())
        for numbers in (self.rows, self.columns):
            found.update(f"{len(numbers)};".encode() + numbers.astype("<i8").tobytes())
        found.update(f"{self.median_total!r};".encode())
        if self.is_regulator is not None:
            found.update(b"regulators" + np.packbits(self.is_regulator).tobytes())
        if self.labels is not None:
            found.update("\n".join(["labels", *map(str, self.labels)]).encode())
        return found.hexdigest()

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The table of its cells."""
        obs = self.store.obs.iloc[self.rows]
        if self.labels is None:
            return obs
        return obs.assign(perturbation=self.labels, is_control=np.asarray(self.labels == NON_TARGETING))

    @cached_property
    def var(self) -> pd.DataFrame:
        """The table of its genes; the moments in it are over all cells of the store."""
        return self.store.var.iloc[self.columns]

    @cached_property
    def perturbed(self) -> Int64[np.ndarray, " cells"]:
        """Column of this view of the gene perturbed in each cell; CONTROL or UNMAPPED where it is not one of them."""
        return perturbed_columns(self.obs, self.panel)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """Every label of its cells' table, used or not, in the order of `label_of_cell`."""
        return tuple(map(str, self._labels.categories))

    @cached_property
    def label_of_cell(self) -> Int64[np.ndarray, " cells"]:
        """Which of `label_names` each cell has."""
        return self._labels.codes.to_numpy().astype(np.int64)

    @cached_property
    def _labels(self) -> Any:  # pandas' accessor
        return self.obs["perturbation"].astype("category").cat

    @cached_property
    def totals(self) -> Float[np.ndarray, " cells"]:
        """Sum of each cell's values over all genes of the store, in the stored state."""
        return self.store.totals[self.rows]

    def whole_rows(self, size: int = BLOCK) -> Iterator[Block]:
        """Its cells in order, `size` at a time, with all genes of the store: (rows of this view, their values)."""
        for start in range(0, self.n_cells, size):
            stop = min(start + size, self.n_cells)
            yield slice(start, stop), self.store.read_cells(self.rows[start:stop])

    def blocks(self, size: int = BLOCK) -> Iterator[Block]:
        """Its cells in order, `size` at a time, with its own genes: (rows of this view, their values)."""
        for rows, values in self.whole_rows(size):
            yield rows, self.cut(values)

    def cut(self, values: sparse.csr_matrix) -> sparse.csr_matrix:
        """Its genes of `values`, which have all genes of the store."""
        return values if self.n_genes == self.store.n_genes else values[:, self.columns]


def whole(store: Store) -> View:
    """Every cell and gene."""
    return View(store, np.arange(store.n_cells), np.arange(store.n_genes), store.median_total)


def kept_cells(view: View, keep: Bool[np.ndarray, " cells"], by: str) -> View:
    """Some of its cells, with a line that says so.

    Raises:
        SelectionError: none is kept.
    """
    line = _funnel(view, "cells", keep, by)
    return replace(view, rows=view.rows[keep], lines=(*view.lines, line))


def kept_genes(view: View, keep: Bool[np.ndarray, " genes"], by: str) -> View:
    """Some of its genes, with a line that says so.

    Raises:
        SelectionError: none is kept.
    """
    line = _funnel(view, "genes", keep, by)
    return replace(view, columns=view.columns[keep], lines=(*view.lines, line))


def _funnel(view: View, what: str, keep: np.ndarray, by: str) -> str:
    if not keep.any():
        raise SelectionError(f"{view.place}: {by} keeps none of the {len(keep):,} {what} left by then; loosen it")
    return f"{what}: {int(keep.sum()):,} of {len(keep):,} kept by {by}"
