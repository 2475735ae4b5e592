"""Second pass of a build: each output shard is gathered from the spill files, described and written.

A shard's record, with checksums and its part of the genes' moments, is written last: a shard that has one is done.
Moments are summed cell after cell and shard after shard, so they do not depend on who computed what, and when.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import no_type_check

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, Shaped
from numba import njit

from grndist.data.ingest.parts import column_dtype
from grndist.data.ingest.spill import Spill, found_in
from grndist.data.store import CODECS, Profile
from grndist.data.store.shards import encode_shard, index_crc
from grndist.files import write_whole

TABLE = 32  # logarithms of counts below this are looked up, one table a cell
TOTAL, SQUARE, COUNT, SMALLEST, LARGEST, LOG_TOTAL, LOG_SQUARE = range(7)  # columns of the moments


@dataclass(frozen=True)
class Target:
    """The matrix that is written: its type and how it is cut into shards."""

    profile: Profile
    n_cells: int
    n_genes: int
    n_values: int
    dtype: str
    with_logs: bool  # moments of the logarithms as well: of counts
    chunk: int  # elements
    shard: int  # elements

    @property
    def n_elements(self) -> int:
        """Elements of the array, or of each of the two that make a sparse matrix."""
        return self.n_values if self.profile == "train" else self.n_cells * self.n_genes

    @property
    def n_shards(self) -> int:
        """Number of shards; of each of the two arrays."""
        return -(-self.n_elements // self.shard)

    @property
    def arrays(self) -> dict[str, np.dtype]:
        """Name and type of the sharded arrays."""
        if self.profile == "archive":
            return {"X": np.dtype(self.dtype)}
        return {"X/data": np.dtype(self.dtype), "X/indices": column_dtype(self.n_genes)}

    def key(self, array: str, number: int) -> str:
        """Where a shard is in the store."""
        return f"{array}/c/{number}" + ("/0" if self.profile == "archive" else "")

    def rows(
        self, indptr: Int64[np.ndarray, " cells_plus_1"]
    ) -> tuple[Int64[np.ndarray, " shards"], Int64[np.ndarray, " shards"]]:
        """First row of each shard and the row after its last; a row that two shards share is in both."""
        first = np.arange(self.n_shards, dtype=np.int64) * self.shard
        last = np.minimum(first + self.shard, self.n_elements)
        if self.profile == "archive":
            return first // self.n_genes, last // self.n_genes
        return np.searchsorted(indptr, first, side="right") - 1, np.searchsorted(indptr, last, side="left")


@dataclass(frozen=True)
class Work:
    """Where a build's files are, and what is written from them."""

    folder: Path  # the spill files and records
    store: Path  # the store as far as it is
    target: Target

    @property
    def indptr(self) -> Path:
        """Where each row begins among all values, int64."""
        return self.folder / "indptr"

    @property
    def scales(self) -> Path:
        """What a row's values are multiplied by before the logarithm, float64."""
        return self.folder / "scales"

    def record(self, number: int) -> Path:
        """What is known of a shard that is done."""
        return self.folder / "shards" / f"{number:06d}.npz"

    def is_done(self, number: int) -> bool:
        """Whether a shard is there."""
        if not self.record(number).is_file():
            return False
        files = [self.store / self.target.key(array, number) for array in self.target.arrays]
        with np.load(self.record(number)) as record:
            sizes = record["bytes"].tolist()
        return [file.stat().st_size if file.is_file() else -1 for file in files] == sizes


def assemble_tasks(
    work: Work,
    parts: Sequence[int],
    rows: tuple[Int64[np.ndarray, " shards"], Int64[np.ndarray, " shards"]],
    cuts: tuple[Int64[np.ndarray, "parts shards"], Int64[np.ndarray, "parts shards"]],
) -> list[partial]:
    """A task for each shard that is not done.

    Args:
        work: the build.
        parts: numbers of the parts.
        rows: first row of each shard, and the row after its last.
        cuts: of each part the first cell that belongs to each shard, and the one after the last.
    """
    (work.folder / "shards").mkdir(exist_ok=True)
    for array in work.target.arrays:
        for number in range(work.target.n_shards):
            (work.store / work.target.key(array, number)).parent.mkdir(parents=True, exist_ok=True)
    return [
        partial(assemble_shard, work, number, int(begin), int(end), _cut(parts, cuts[0][:, number], cuts[1][:, number]))
        for number, (begin, end) in enumerate(zip(*rows, strict=True))
        if not work.is_done(number)
    ]


def _cut(parts: Sequence[int], begin: np.ndarray, end: np.ndarray) -> list[tuple[int, int, int]]:
    return [
        (part, a, b) for part, a, b in zip(parts, begin.tolist(), end.tolist(), strict=True) if a < b
    ]  # most parts have cells in most shards


def assemble_shard(work: Work, number: int, begin: int, end: int, cells: list[tuple[int, int, int]]) -> None:
    """Gather one shard, compute its moments and write it.

    Args:
        work: the build.
        number: of the shard.
        begin: first store row with values in it.
        end: the row after the last.
        cells: (part, first cell, cell after the last) for the parts that have cells in it.

    Raises:
        UserError: the disk is full.
    """
    target = work.target
    first = number * target.shard
    size = min(target.shard, target.n_elements - first)
    indptr = np.fromfile(work.indptr, np.int64, end - begin + 1, offset=8 * begin)
    scales = np.fromfile(work.scales, np.float64, end - begin, offset=8 * begin)
    moments = no_moments(target.n_genes)
    if target.profile == "archive":
        dense = np.zeros((end - begin, target.n_genes), dtype=target.dtype)
        for destinations, starts, values, columns in _cells(work, cells):
            _scatter_dense(destinations - begin, starts, values, columns, dense)
        _accumulate_dense(dense, scales, target.with_logs, moments)
        contents = [dense.reshape(-1)]
    else:
        data, indices = (np.empty(size, dtype=dtype) for dtype in target.arrays.values())
        offsets = indptr - first
        for destinations, starts, values, columns in _cells(work, cells):
            _scatter(destinations - begin, starts, values, columns, offsets, data, indices)
        _accumulate(np.clip(offsets, 0, size), indices, data, scales, target.with_logs, moments)
        contents = [data, indices]
        del data, indices
    written = [_write(work, array, number, contents.pop(0)) for array in target.arrays]
    sizes, hashes, indexes = zip(*written, strict=True)
    _write_record(work, number, bytes=sizes, sha256=hashes, index=indexes, moments=moments)


def _cells(work: Work, cells: list[tuple[int, int, int]]) -> Iterator[tuple[np.ndarray, ...]]:
    dtype = column_dtype(work.target.n_genes)
    for part, begin, end in cells:
        yield Spill(work.folder, found_in(work.folder, part), dtype).cells(begin, end)


def _write(work: Work, array: str, number: int, values: Shaped[np.ndarray, " elements"]) -> tuple[int, str, str]:
    """Bytes, sha256 and checksum of the index of the shard written."""
    target = work.target
    content = encode_shard(values, target.chunk, target.shard, CODECS[target.profile])
    write_whole(work.store / target.key(array, number), [content])
    return len(content), hashlib.sha256(content).hexdigest(), index_crc(content)


def _write_record(work: Work, number: int, **arrays: np.ndarray | tuple) -> None:
    content = BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_whole(work.record(number), [content.getbuffer()])


def shard_files(work: Work) -> pd.DataFrame:
    """Key, bytes, sha256 and checksum of the index of every shard."""
    rows = []
    for number in range(work.target.n_shards):
        with np.load(work.record(number)) as record:
            columns = (record[name].tolist() for name in ("bytes", "sha256", "index"))
            keys = [work.target.key(array, number) for array in work.target.arrays]
            rows += list(zip(keys, *columns, strict=True))
    return pd.DataFrame(rows, columns=["key", "bytes", "sha256", "index"])


def no_moments(n_genes: int) -> Float[np.ndarray, "genes 8"]:
    """The moments of nothing; a gene's are side by side, in one line of the CPU's cache."""
    moments = np.zeros((n_genes, 8))
    moments[:, SMALLEST], moments[:, LARGEST] = np.inf, -np.inf
    return moments


def moments_of(work: Work) -> Float[np.ndarray, "genes 8"]:
    """Sums over all cells, merged in the order of the shards."""
    moments = no_moments(work.target.n_genes)
    for number in range(work.target.n_shards):
        with np.load(work.record(number)) as record:
            more = record["moments"]
        smallest = np.minimum(moments[:, SMALLEST], more[:, SMALLEST])
        largest = np.maximum(moments[:, LARGEST], more[:, LARGEST])
        moments += more
        moments[:, SMALLEST], moments[:, LARGEST] = smallest, largest
    return moments


# The inner loops are compiled, and not parallel: numba's threads would change how many PyTorch uses.


@njit(nogil=True, cache=True)
@no_type_check
def _scatter(rows, starts, values, columns, offsets, data, indices):
    """Put each cell's values where its row is in the shard; what lies beyond either end belongs to another shard."""
    size = len(data)
    for i in range(len(rows)):
        place = offsets[rows[i]]
        for position in range(starts[i], starts[i + 1]):
            if 0 <= place < size:
                data[place] = values[position]
                indices[place] = columns[position]
            place += 1


@njit(nogil=True, cache=True)
@no_type_check
def _scatter_dense(rows, starts, values, columns, dense):
    for i in range(len(rows)):
        for position in range(starts[i], starts[i + 1]):
            dense[rows[i], columns[position]] = values[position]


@njit(nogil=True, cache=True)
@no_type_check
def _add(moments, value, log):
    moments[TOTAL] += value
    moments[SQUARE] += value * value
    moments[COUNT] += 1
    moments[SMALLEST] = min(moments[SMALLEST], value)
    moments[LARGEST] = max(moments[LARGEST], value)
    moments[LOG_TOTAL] += log
    moments[LOG_SQUARE] += log * log


@njit(nogil=True, cache=True)
@no_type_check
def _log(value, scale, table):
    small = int(value) if value < TABLE else 0
    return table[small] if small == value else np.log1p(value * scale)


@njit(nogil=True, cache=True)
@no_type_check
def _accumulate(indptr, indices, data, scales, with_logs, moments):
    table = np.zeros(TABLE)
    for row in range(len(indptr) - 1):
        if with_logs:
            for count in range(TABLE):
                table[count] = np.log1p(count * scales[row])
        for position in range(indptr[row], indptr[row + 1]):
            value = np.float64(data[position])
            log = _log(value, scales[row], table) if with_logs else 0.0
            _add(moments[indices[position]], value, log)


@njit(nogil=True, cache=True)
@no_type_check
def _accumulate_dense(dense, scales, with_logs, moments):
    table = np.zeros(TABLE)
    for row in range(len(dense)):
        if with_logs:
            for count in range(TABLE):
                table[count] = np.log1p(count * scales[row])
        for gene in range(dense.shape[1]):
            value = np.float64(dense[row, gene])
            if value != 0:
                _add(moments[gene], value, _log(value, scales[row], table) if with_logs else 0.0)
