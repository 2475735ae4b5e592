"""Entries in any order become rows that can be read: what CSC, matrix.mtx and tables of text lack.

The entries (cell, gene, value) are streamed once, in bounded memory, into binary files (buckets), one for each range
of cells. A record that is written last says that they are complete, so that a conversion is done once, also over kills.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped
from scipy import sparse

from grndist.data.sources.source import UnreadableError
from grndist.files import WriteError, remove, write_whole
from grndist.progress import bar

BUCKET = 2**24  # bytes that a bucket should have
HELD = 2**24  # bytes of entries that wait to be written; about four times that is in use
PIECE = 2**20  # entries of a bucket that are read at once
MOST_CELLS = 2**16  # in a bucket


class Entries(NamedTuple):
    """Some entries, and how much of the source is behind them."""

    cells: Integer[np.ndarray, " entries"]
    genes: Integer[np.ndarray, " entries"]
    values: Shaped[np.ndarray, " entries"]
    done: int


@dataclass(frozen=True)
class Buckets:
    """Complete files, the number of entries in each, and how to read them; bucket i has cells [i, i + 1) * cells."""

    folder: Path
    cells: int
    dtype: np.dtype
    counts: tuple[int, ...]


@dataclass(frozen=True)
class BucketRows:
    """Rows out of buckets."""

    buckets: Buckets
    shape: tuple[int, int]

    @property
    def n_stored(self) -> int:
        """Entries of all cells."""
        return sum(self.buckets.counts)

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Cells `start` to `stop`, as they were in the source: columns in any order, also twice."""
        shape = (stop - start, self.shape[1])
        first, last = start // self.buckets.cells, -(-stop // self.buckets.cells)
        pieces = [piece for number in range(first, last) for piece in self._pieces(number, start, stop)]
        if not pieces:
            return sparse.csr_matrix(shape, dtype=self.buckets.dtype)
        cells, genes, values = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        entries = sparse.coo_matrix((values, (cells, genes)), shape=shape)
        entries.has_canonical_format = True  # or scipy sums entries of one place here, in a type that may be too narrow
        return entries.tocsr()

    def _pieces(self, number: int, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Cells counted from `start`, genes and values of the entries between `start` and `stop`."""
        offset = number * self.buckets.cells - start
        for entries in _read(self.buckets, number):
            cells = entries["cell"].astype(np.int32) + offset
            inside = (cells >= 0) & (cells < stop - start)
            if inside.all():
                yield cells, entries["gene"].astype(np.int32), entries["value"].copy()
            elif inside.any():
                yield cells[inside], entries["gene"][inside].astype(np.int32), entries["value"][inside]


def per_bucket(values_per_cell: float, dtype: np.dtype) -> int:
    """How many cells make a bucket, where each has about `values_per_cell` entries."""
    return int(min(max(BUCKET / max(values_per_cell * _entry(dtype).itemsize, 1), 1), MOST_CELLS))


def transposed(
    path: Path,
    name: str,
    cells: int,
    dtype: np.dtype,
    total: int,
    parts: Callable[[], Iterator[Entries]],
    shape: tuple[int, int],
    work: Path,
) -> BucketRows:
    """The rows of a source that gives entries; see `in_buckets`."""
    return BucketRows(in_buckets(path, name, cells, dtype, total, parts, work), shape)


def in_buckets(
    path: Path, name: str, cells: int, dtype: np.dtype, total: int, parts: Callable[[], Iterator[Entries]], work: Path
) -> Buckets:
    """Stream entries into buckets, unless an earlier call has finished that.

    Args:
        path: the source; if it was changed since, the conversion is done again.
        name: which part of it; with anything else that makes a difference.
        cells: of a bucket.
        dtype: of the values.
        total: what `done` of the last part will be, for the progress bar.
        parts: gives all entries.
        work: a folder that exists; the caller removes it.

    Raises:
        WriteError: the disk is full.
    """
    folder, record = work / "entries", work / "entries.json"
    asked = {"source": fingerprint(path), "name": name, "cells": cells, "dtype": dtype.str}
    known = _finished(record, asked, folder, _entry(dtype).itemsize)
    if known is None:
        record.unlink(missing_ok=True)
        remove(folder)
        known = _written(folder, path.name, cells, dtype, total, parts())
        write_whole(record, [json.dumps(asked | {"counts": known}).encode()])
    return Buckets(folder, cells, dtype, tuple(known))


def fingerprint(path: Path) -> str:
    """Changes where a file, or one of a folder's, is written anew."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _entry(dtype: np.dtype) -> np.dtype:
    return np.dtype([("cell", "<u2"), ("gene", "<u4"), ("value", dtype)])


def _finished(record: Path, asked: dict[str, Any], folder: Path, itemsize: int) -> list[int] | None:
    """Entries of each bucket, if `record` is of this conversion and the files are whole."""
    try:
        known = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return None
    counts = known.pop("counts", [])
    files = [folder / str(number) for number in range(len(counts))]
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    return counts if known == asked and sizes == [itemsize * count for count in counts] else None


def _written(folder: Path, title: str, cells: int, dtype: np.dtype, total: int, parts: Iterator[Entries]) -> list[int]:
    """Entries of each bucket, after writing them all."""
    folder.mkdir(parents=True)
    counts: dict[int, int] = {}
    held = np.empty(max(HELD // _entry(dtype).itemsize, 1), dtype=_entry(dtype))
    buckets = np.empty(len(held), dtype=np.int64)
    used = 0
    with bar() as progress:
        task = progress.add_task(f"convert {title}", total=total)
        for part in parts:
            begin = 0
            while begin < len(part.cells):
                end = min(begin + len(held) - used, len(part.cells))
                there, taken = slice(used, used + end - begin), slice(begin, end)
                numbers = part.cells[taken].astype(np.int64)
                buckets[there] = numbers // cells
                held["cell"][there] = numbers - buckets[there] * cells
                held["gene"][there], held["value"][there] = part.genes[taken], part.values[taken]
                begin, used = end, there.stop
                if used == len(held):
                    _append(folder, buckets, held, counts)
                    used = 0
            progress.update(task, completed=part.done)
    _append(folder, buckets[:used], held[:used], counts)
    return [counts.get(number, 0) for number in range(max(counts, default=-1) + 1)]


def _append(folder: Path, buckets: np.ndarray, entries: np.ndarray, counts: dict[int, int]) -> None:
    """Add entries to the ends of their buckets' files, in their order."""
    if not len(entries):
        return
    keys = buckets.astype(np.min_scalar_type(buckets.max()))  # sorting short integers takes linear time
    order = np.argsort(keys, kind="stable")
    numbers, starts = np.unique(keys[order], return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        file = folder / str(number)
        try:
            with file.open("ab") as handle:
                handle.write(entries[places].tobytes())
        except OSError as error:
            raise WriteError(file, error.strerror or str(error)) from error
        counts[number] = counts.get(number, 0) + len(places)


def _read(buckets: Buckets, number: int) -> Iterator[np.ndarray]:
    count = buckets.counts[number] if number < len(buckets.counts) else 0
    file, entry = buckets.folder / str(number), _entry(buckets.dtype)
    if not count:
        return
    try:
        if file.stat().st_size != count * entry.itemsize:
            raise UnreadableError(f"{file} was changed or cut short while it was in use; run the same command again")
        with file.open("rb") as handle:
            while content := handle.read(PIECE * entry.itemsize):
                yield np.frombuffer(content, dtype=entry)
    except FileNotFoundError:
        raise UnreadableError(
            f"{file} is missing: was it removed while it was in use? Run the same command again"
        ) from None
