"""Q^T Q of blocks of cells, added to float64.

Products of two genes that are often seen are a symmetric rank-k update by BLAS, half of a general product. A gene that
is seen in few cells multiplies, by a compiled loop, the rows of those cells alone: a loop is slower by number of
operations, but there are far fewer of them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.linalg import get_blas_funcs

from grndist.data.moments import kernels

OFTEN = (
    0.08  # share of cells that a gene is seen in from which BLAS is faster; 0.05 to 0.1 measured on two AVX-512 CPUs
)


@dataclass(frozen=True)
class Rows:
    """Q of some cells: all of it, the columns of frequent genes, and the values of rare genes, gene by gene."""

    q: Float[np.ndarray, "cells genes"]
    frequent: Float[np.ndarray, "cells often"]
    values: Float[np.ndarray, " values"]
    cells: Int64[np.ndarray, " values"]
    bounds: Int64[np.ndarray, " rare_plus_1"]


class Products:
    """Adds Q^T Q to `whole`, which is complete after `finish`."""

    def __init__(self, whole: Float64[np.ndarray, "genes genes"], rare: Bool[np.ndarray, " genes"], dtype: np.dtype):
        self._whole = whole
        self._rare, self._frequent = np.flatnonzero(rare), np.flatnonzero(~rare)
        self._rare_block = np.zeros((len(self._rare), len(whole)), dtype)
        self._frequent_block = np.zeros((len(self._frequent),) * 2, dtype)
        self._syrk = get_blas_funcs("syrk", dtype=dtype)

    def rows(self, q: Float[np.ndarray, "cells genes"]) -> Rows:
        """What `add` wants to know of Q; can be made in another thread."""
        frequent = np.take(q, self._frequent, axis=1) if len(self._rare) else q
        return Rows(q, frequent, *kernels.by_gene(q, self._rare))

    def add(self, rows: Rows) -> None:
        """Add cells to the block."""
        if len(self._frequent):
            # transposes are in Fortran's order, in which nothing is copied; its lower triangle is our upper one
            block = self._frequent_block.T
            self._syrk(1.0, rows.frequent.T, c=block, beta=1.0, lower=1, overwrite_c=1)
        kernels.add_rare(rows.q, rows.values, rows.cells, rows.bounds, self._rare_block)

    def end_block(self) -> None:
        """Add the block to the whole."""
        kernels.move_upper(self._frequent_block, self._frequent, self._whole)
        kernels.move_rows(self._rare_block, self._rare, self._whole)

    def finish(self) -> None:
        """Fill in the other triangle."""
        self._whole[:, self._rare] = self._whole[self._rare].T
        kernels.mirror_upper(self._whole)
