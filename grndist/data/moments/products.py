"""Q^T Q of blocks of cells, added to float64.

Products of two genes that are often seen are a symmetric rank-k update by BLAS, half of a general product. A gene that
is seen in few cells multiplies, by a compiled loop, the rows of those cells alone: a loop is slower by number of
operations, but there are far fewer of them.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.linalg import get_blas_funcs

from grndist.data.moments import kernels

OFTEN = 0.08  # share of cells with a gene from which BLAS is faster: 0.05 to 0.1 measured, with AVX-512


class Products:
    """Adds Q^T Q to `whole`, which is complete after `finish`; every piece goes to both `add_` methods.

    The two can work on different pieces at the same time, in threads of their own.
    """

    def __init__(self, whole: Float64[np.ndarray, "genes genes"], rare: Bool[np.ndarray, " genes"], dtype: np.dtype):
        self._whole = whole
        self._rare, self._frequent = np.flatnonzero(rare), np.flatnonzero(~rare)
        self._rare_block = np.zeros((len(self._rare), len(whole)), dtype)
        self._frequent_block = np.zeros((len(self._frequent),) * 2, dtype)
        self._syrk = get_blas_funcs("syrk", dtype=dtype)

    def add_rare(self, q: Float[np.ndarray, "cells genes"], ends_block: bool) -> Float[np.ndarray, "cells often"]:
        """Add the rare genes' products with all genes; return the columns of the others, which `add_frequent` wants."""
        kernels.add_rare(q, *kernels.by_gene(q, self._rare), self._rare_block)
        if ends_block:
            kernels.move_rows(self._rare_block, self._rare, self._whole)
        return np.take(q, self._frequent, axis=1) if len(self._rare) else q

    def add_frequent(self, q: Float[np.ndarray, "cells often"], ends_block: bool) -> None:
        """Add the products of frequent genes with one another."""
        if len(self._frequent):
            # transposes are in Fortran's order, in which nothing is copied; its lower triangle is our upper one
            self._syrk(1.0, q.T, c=self._frequent_block.T, beta=1.0, lower=1, overwrite_c=1)
        if ends_block:
            kernels.move_upper(self._frequent_block, self._frequent, self._whole)

    def finish(self) -> None:
        """Fill in the other triangle."""
        self._whole[:, self._rare] = self._whole[self._rare].T
        kernels.mirror_upper(self._whole)
