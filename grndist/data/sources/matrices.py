"""Rows of a matrix in an HDF5 file or Zarr folder: compressed by rows (CSR), by columns (CSC), or dense.

CSR and dense are read in slices. CSC is converted once; see `transposed`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import zarr
from jaxtyping import Int64, Shaped
from scipy import sparse

from grndist.data.sources.container import Array, Tree, check_chunks, opened
from grndist.data.sources.source import Rows, SourceError, cells_between
from grndist.data.sources.transposed import Entries, per_bucket, transposed

DENSE_BYTES = 2**24  # of a dense matrix, that are held at once
ENTRIES = 2**19  # of a CSC matrix, that are held at once


@dataclass(frozen=True)
class SparseRows:
    """Rows of a CSR matrix: `data`, `indices`, `indptr` in the group `name`."""

    path: Path
    name: str
    shape: tuple[int, int]
    n_stored: int

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Cells `start` to `stop` as they are in the file."""
        with opened(self.path, f", {self.name}, {cells_between(start, stop)}") as tree:
            group = tree[self.name]
            indptr = np.asarray(group["indptr"][start : stop + 1]).astype(np.int64)
            if (np.diff(indptr) < 0).any() or indptr[0] < 0 or indptr[-1] > self.n_stored:
                raise self._damaged("indptr", start, stop, f"it does not ascend from 0 to {self.n_stored}")
            stored = slice(int(indptr[0]), int(indptr[-1]))
            indices, values = np.asarray(group["indices"][stored]), numbers(group["data"][stored])
            outside = beyond(indices, self.shape[1])
            if outside is not None:
                raise self._damaged("indices", start, stop, f"it names gene number {outside} of {self.shape[1]}")
            indptr -= stored.start
            wide = np.int32 if len(values) < 2**31 else np.int64  # scipy copies where the two types differ
            parts = (values, indices.astype(wide, copy=False), indptr.astype(wide))
            return sparse.csr_matrix(parts, shape=(stop - start, self.shape[1]))

    def _damaged(self, array: str, start: int, stop: int, what: str) -> SourceError:
        return SourceError(
            f"{self.path}: {self.name}/{array} is damaged at {cells_between(start, stop)}: {what}; download or write "
            "the file again"
        )


@dataclass(frozen=True)
class DenseRows:
    """Rows of a dense matrix, the array `name`; it is read in blocks, and zeros are not kept."""

    path: Path
    name: str
    shape: tuple[int, int]
    step: int  # rows that are read at once

    @property
    def n_stored(self) -> None:
        """It is not known how many values are not zero."""
        return

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Cells `start` to `stop`, without zeros."""
        with opened(self.path, f", {self.name}, {cells_between(start, stop)}") as tree:
            array = tree[self.name]
            bounds = [start, *range(start - start % self.step + self.step, stop, self.step), stop]
            blocks = [sparse.csr_matrix(numbers(array[a:b])) for a, b in pairwise(bounds)]
        return sparse.csr_matrix(sparse.vstack(blocks, format="csr"))


@dataclass(frozen=True)
class SparseColumns:
    """Entries of a CSC matrix: `data`, `indices`, `indptr` in the group `name`."""

    path: Path
    name: str
    shape: tuple[int, int]
    n_stored: int

    def parts(self) -> Iterator[Entries]:
        """All entries, in the order of the file."""
        with opened(self.path, f", {self.name}") as tree:
            group = tree[self.name]
            indptr = np.asarray(group["indptr"][:]).astype(np.int64)
            if (np.diff(indptr) < 0).any() or indptr[0] != 0 or indptr[-1] != self.n_stored:
                raise self._damaged("indptr", f"it does not ascend from 0 to {self.n_stored}")
            for first in range(0, self.n_stored, ENTRIES):
                last = min(first + ENTRIES, self.n_stored)
                cells = np.asarray(group["indices"][first:last])
                outside = beyond(cells, self.shape[0])
                if outside is not None:
                    raise self._damaged("indices", f"it names cell number {outside} of {self.shape[0]}")
                yield Entries(cells, _owners(indptr, first, last), numbers(group["data"][first:last]), last)

    def _damaged(self, array: str, what: str) -> SourceError:
        return SourceError(f"{self.path}: {self.name}/{array} is damaged: {what}; download or write the file again")


def matrix_at(path: Path, tree: Tree, name: str) -> tuple[tuple[int, int], Callable[[Path], Rows]]:
    """Shape, and the way to the rows, of the matrix `name`, whatever its kind.

    Raises:
        SourceError: it is not a matrix of numbers, its arrays do not fit each other, or files are missing.
    """
    element = tree[name]
    if not isinstance(element, h5py.Group | zarr.Group):
        return _dense_at(path, element, name)
    encoding = str(element.attrs.get("encoding-type", ""))
    if encoding not in ("csr_matrix", "csc_matrix"):
        raise SourceError(
            f"{path}: {name} is stored as {encoding or 'a group without encoding-type'!r}; CSR, CSC or dense was "
            "expected: read it with scanpy and write it again (write_h5ad)"
        )
    cells, genes = (int(length) for length in element.attrs["shape"])
    by_rows = encoding == "csr_matrix"
    n_stored, dtype = sparse_arrays(path, element, name, cells if by_rows else genes)
    if by_rows:
        rows = SparseRows(path, name, (cells, genes), n_stored)
        return rows.shape, lambda work: rows
    columns = SparseColumns(path, name, (cells, genes), n_stored)
    return columns.shape, partial(
        transposed,
        path,
        name,
        per_bucket(n_stored / max(cells, 1), dtype),
        dtype,
        n_stored,
        columns.parts,
        columns.shape,
    )


def sparse_arrays(path: Path, group: Tree, name: str, lines: int) -> tuple[int, np.dtype]:
    """Number and type of the stored values, after checking that the three arrays fit `lines` rows (CSC: columns)."""
    data, indices, indptr = (group[array] for array in ("data", "indices", "indptr"))
    dtype = _number_type(path, f"{name}/data", data)
    lengths = (data.shape, indices.shape, indptr.shape)
    if lengths != (indices.shape, data.shape, (lines + 1,)) or {indices.dtype.kind, indptr.dtype.kind} - set("iu"):
        raise SourceError(
            f"{path}: {name} is damaged: it has {data.shape} values, {indices.shape} indices ({indices.dtype}) and "
            f"{indptr.shape} pointers ({indptr.dtype}) for {lines} rows or columns; download or write the file again"
        )
    n_stored = int(data.shape[0])
    for array in (data, indices, indptr) if n_stored else ():
        check_chunks(path, array)
    if int(indptr[-1]) != n_stored:
        raise SourceError(
            f"{path}: {name} is damaged: its pointers end at {int(indptr[-1])}, but it has {n_stored} values; "
            "download or write the file again"
        )
    return n_stored, dtype


def _dense_at(path: Path, array: Array, name: str) -> tuple[tuple[int, int], Callable[[Path], Rows]]:
    if array.ndim != 2:
        raise SourceError(f"{path}: {name} is {array.dtype} of shape {array.shape}, not a matrix of numbers")
    dtype = _number_type(path, name, array)
    check_chunks(path, array)
    rows, chunk = DENSE_BYTES // max(array.shape[1] * dtype.itemsize, 1), (array.chunks or (1,))[0]
    dense = DenseRows(path, name, tuple(array.shape), max(rows - rows % chunk or rows, 1))
    return dense.shape, lambda work: dense


def _number_type(path: Path, name: str, array: Array) -> np.dtype:
    """The type in which the array's values are read."""
    if array.dtype.kind not in "buif":
        raise SourceError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}, not a matrix of numbers; give counts or "
            "expression values"
        )
    return numbers(np.empty(0, array.dtype)).dtype


def numbers(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Values in a type of this machine that scipy knows: no truth values, no half precision."""
    values = np.asarray(values)
    if values.dtype.kind == "b":
        return values.view(np.uint8)
    native = values.dtype.newbyteorder("=")
    return values.astype(np.promote_types(native, np.float32) if native.kind == "f" else native, copy=False)


def beyond(indices: Shaped[np.ndarray, " entries"], length: int) -> int | None:
    """An index that is not below `length`, if there is one."""
    if not len(indices):
        return None
    low, high = int(indices.min()), int(indices.max())
    return low if low < 0 else high if high >= length else None


def _owners(indptr: Int64[np.ndarray, " _"], first: int, last: int) -> Int64[np.ndarray, " entries"]:
    """Which column each of the entries `first` to `last` is of."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr.clip(first, last)))
