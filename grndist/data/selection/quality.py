"""What filters of cells and genes go by, each measured in one pass over a view, a block at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy import sparse

from grndist.data.store import BLOCK
from grndist.data.view import Block, View
from grndist.genes import CONTROL
from grndist.progress import track


@dataclass(frozen=True)
class Seen:
    """How each gene of a view shows in its cells."""

    cells: Int64[np.ndarray, " genes"]  # in which it is not zero
    is_constant: Bool[np.ndarray, " genes"]  # the same stored value in every cell: no variance


def count_shares(view: View, chosen: Bool[np.ndarray, "patterns genes"]) -> Float[np.ndarray, "cells patterns"]:
    """Share of each cell's total that lies in the genes chosen, for several choices at once; 0 for an empty cell."""
    weights = np.ascontiguousarray(chosen.T, dtype=np.float64)
    inside = np.zeros((view.n_cells, len(chosen)))
    for rows, values in _blocks(view, "shares of counts"):
        inside[rows] = values @ weights
    return np.divide(inside, view.totals[:, None], out=np.zeros_like(inside), where=view.totals[:, None] > 0)


def own_values(
    view: View, own: Int64[np.ndarray, " cells"], description: str = "perturbed genes"
) -> Float[np.ndarray, " cells"]:
    """The stored value of each cell's own gene, `own` being a column of the view; 0 where that is negative."""
    found = np.zeros(view.n_cells)
    for rows, values in _blocks(view, description):
        found[rows] = _own(values, own[rows])
    return found


def remaining(view: View) -> Float[np.ndarray, " genes"]:
    """Mean expression of each gene in the cells in which it is perturbed, as a share of its mean in control cells.

    Counts are divided by the cell's total, log1p values are taken back to the linear scale, others are as stored.
    NaN for a gene that is perturbed in no cell or seen in no control cell.
    """
    perturbed, controls = view.perturbed, np.zeros(view.n_genes)
    own = np.zeros(view.n_cells)
    for rows, values in _blocks(view, "knock-down of the perturbed genes"):
        linear = _linear(view, values, view.totals[rows])
        own[rows] = _own(linear, perturbed[rows])
        chosen = linear[perturbed[rows] == CONTROL]
        controls += np.bincount(chosen.indices, chosen.data, minlength=view.n_genes)
    mapped = perturbed >= 0
    cells = np.bincount(perturbed[mapped], minlength=view.n_genes)
    total = np.bincount(perturbed[mapped], own[mapped], minlength=view.n_genes)
    mean = controls / max(int((perturbed == CONTROL).sum()), 1)
    known = (cells > 0) & (mean > 0)
    return np.divide(total, cells * mean, out=np.full(view.n_genes, np.nan), where=known)


def seen(view: View) -> Seen:
    """In how many cells each gene is seen, and which genes never vary; from the store where that has all the cells."""
    if view.n_cells == view.store.n_cells:
        cells = view.var["nnz"].to_numpy(np.int64)
        return Seen(cells, (cells == 0) | (view.var["variance"].to_numpy() == 0))
    cells = np.zeros(view.n_genes, dtype=np.int64)
    varies = np.zeros(view.n_genes, dtype=bool)
    first = None
    for _, values in _blocks(view, "genes seen"):
        first = values[0].toarray().ravel() if first is None else first
        cells += np.bincount(values.indices, minlength=view.n_genes)
        varies[values.indices[values.data != first[values.indices]]] = True
    return Seen(cells, ~varies & ((cells == 0) | (cells == view.n_cells)))


def count_tables(
    view: View, chosen: Bool[np.ndarray, " cells"], columns: Int64[np.ndarray, " columns"], levels: int
) -> Int64[np.ndarray, "columns levels"]:
    """How often each count occurs in the chosen cells, for some genes; the last level is that count and any above."""
    slot = np.full(view.n_genes, -1)
    slot[columns] = np.arange(len(columns))
    tables = np.zeros((len(columns), levels), dtype=np.int64)
    for rows, values in _blocks(view, "counts of control cells"):
        part = values[chosen[rows]]
        place = slot[part.indices]
        count = np.minimum(part.data[place >= 0], levels - 1).astype(np.int64)
        tables += np.bincount(place[place >= 0] * levels + count, minlength=tables.size).reshape(tables.shape)
    tables[:, 0] = int(chosen.sum()) - tables[:, 1:].sum(axis=1)
    return tables


def _blocks(view: View, description: str) -> Iterator[Block]:
    return track(view.blocks(), description, -(-view.n_cells // BLOCK))


def _own(values: sparse.csr_matrix, own: np.ndarray) -> np.ndarray:
    """The value of column own[i] in each row i."""
    lengths = np.diff(values.indptr)
    is_own = values.indices == np.repeat(own, lengths)
    found = np.zeros(len(own))
    found[np.repeat(np.arange(len(own)), lengths)[is_own]] = values.data[is_own]
    return found


def _linear(view: View, values: sparse.csr_matrix, totals: np.ndarray) -> sparse.csr_matrix:
    linear = values.astype(np.float64)
    if view.state == "counts":
        linear.data /= np.repeat(totals, np.diff(values.indptr))
    elif view.state == "log1p":
        linear.data = np.expm1(linear.data)
    return linear
