"""The rows of a source, cut into the parts that tasks read, and the columns they have in the store."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from scipy import sparse

from grndist.data.sources import Rows
from grndist.data.sources.checks import merged, without_zeros


@dataclass(frozen=True)
class MatrixRows:
    """A matrix in memory as rows to read."""

    matrix: sparse.csr_matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.matrix.shape

    @property
    def n_stored(self) -> int:
        """Stored values."""
        return int(self.matrix.nnz)

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows `start` to `stop`; see `Rows`."""
        return without_zeros(merged(sparse.csr_matrix(self.matrix[start:stop])))


@dataclass(frozen=True)
class Columns:
    """Where the columns of a source go in the panel: source column `take[i]` becomes column `place[i]`."""

    take: Int64[np.ndarray, " genes"]
    place: Int64[np.ndarray, " genes"]  # ascending
    n_genes: int  # of the panel

    def of(self, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """The matrix with the panel's columns; a gene it does not have is zero."""
        if np.array_equal(self.take, np.arange(matrix.shape[1])):
            chosen = matrix
        else:
            chosen = matrix[:, self.take]
            chosen.sort_indices()
        shape = (matrix.shape[0], self.n_genes)
        return sparse.csr_matrix((chosen.data, self.place[chosen.indices], chosen.indptr), shape=shape)


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of one source."""

    number: int
    source: int
    rows: Rows
    start: int
    stop: int
    first: int  # place of row `start` among all rows of all sources
    columns: Columns | None  # None: the source's are the panel's
    only_counts: bool  # refuse a value that is not whole


def column_dtype(n_genes: int) -> np.dtype:
    """The smallest type that holds every column."""
    return np.dtype(np.uint16 if n_genes <= 2**16 else np.uint32)
