"""First pass of a build: a part of a source becomes one spill file, its cells in the order of the store.

A spill file holds, one after the other and little endian: destinations (store rows, ascending), starts (of each cell's
values, and the end of the last), totals, sums of exp(value) - 1 where they may be asked for, values, columns. What is
found on the way is a small JSON beside it, written last: a part with that file is done.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int64, Shaped
from numba import njit
from scipy import sparse

from grndist.data.ingest.parts import Part, column_dtype
from grndist.errors import UserError
from grndist.files import write_whole

LARGEST_LOG = 20.0  # e^20 = 5e8, more than any cell's transcripts
LARGEST_COUNT = 2**32 - 1


@dataclass(frozen=True)
class Found:
    """What was found in one part; places are (row of the source, column of the panel)."""

    number: int
    source: int
    n_rows: int
    n_values: int
    dtype: str
    largest: float
    largest_text: str
    largest_place: tuple[int, int]
    n_broken: int  # values that are not whole
    broken_text: str  # the first of them
    broken_place: tuple[int, int]
    has_logged: bool


class NotCountsError(Exception):
    """Counts were asked for, and a value is not whole."""

    def __init__(self, found: Found):
        super().__init__(found)
        self.found = found


def spill_part(folder: Path, part: Part) -> None:
    """Read a part, and write its cells in the order in which the store has them.

    Raises:
        UserError: the source is damaged, the disk is full, or the folder is not visible here.
        NotCountsError: a value is not whole where counts were asked for.
    """
    destination = _destinations(folder, part)
    kept = np.flatnonzero(destination >= 0)
    order = kept[np.argsort(destination[kept])]
    matrix = _read(part) if len(order) else sparse.csr_matrix((len(destination), part.rows.shape[1]), dtype=np.uint16)
    if part.columns is not None:
        matrix = part.columns.of(matrix)
    found, totals_of_exp = _examined(part, matrix, order)
    if part.only_counts and found.n_broken:
        raise NotCountsError(found)
    data, indices, starts, totals = _taken(matrix, order, np.dtype(found.dtype))
    del matrix
    pieces = [destination[order], starts, totals, totals_of_exp, data, indices]
    write_whole(spill_file(folder, part.number), [raw(piece) for piece in pieces])
    write_whole(record_file(folder, part.number), [json.dumps(asdict(found)).encode()])


def spill_tasks(folder: Path, parts: Sequence[Part]) -> list[partial]:
    """A task for each part that is not done."""
    (folder / "parts").mkdir(exist_ok=True)
    return [partial(spill_part, folder, part) for part in parts if not is_spilled(folder, part.number)]


def spill_file(folder: Path, number: int) -> Path:
    """Where the cells of a part are."""
    return folder / "parts" / f"{number:06d}.spill"


def record_file(folder: Path, number: int) -> Path:
    """Where it is written what was found in a part."""
    return folder / "parts" / f"{number:06d}.json"


def is_spilled(folder: Path, number: int) -> bool:
    """Whether a part is done."""
    return record_file(folder, number).is_file() and spill_file(folder, number).is_file()


def found_in(folder: Path, number: int) -> Found:
    """What was found in a part that is done."""
    values: dict[str, Any] = json.loads(record_file(folder, number).read_text())
    places = {name: tuple(values[name]) for name in ("largest_place", "broken_place")}
    return Found(**(values | places))


@dataclass(frozen=True)
class Spill:
    """Reads the cells of a part that is done; a `with` block opens its file."""

    folder: Path
    found: Found
    column_dtype: np.dtype

    @property
    def destinations(self) -> Int64[np.ndarray, " cells"]:
        """Store row of each cell, ascending."""
        return self._section(0, np.dtype(np.int64), 0, self.found.n_rows)

    @property
    def starts(self) -> Int64[np.ndarray, " cells_plus_1"]:
        """Where each cell's values begin, and where the last one's end."""
        return self._section(self._rows(1), np.dtype(np.int64), 0, self.found.n_rows + 1)

    @property
    def totals(self) -> Float[np.ndarray, " cells"]:
        """Sum of each cell's values."""
        return self._section(self._rows(2) + 8, np.dtype(np.float64), 0, self.found.n_rows)

    @property
    def totals_of_exp(self) -> Float[np.ndarray, " cells"]:
        """Sum of exp(value) - 1 in each cell; only where `found.has_logged`."""
        return self._section(self._rows(3) + 8, np.dtype(np.float64), 0, self.found.n_rows)

    def cells(
        self, begin: int, end: int
    ) -> tuple[
        Int64[np.ndarray, " cells"],
        Int64[np.ndarray, " cells_plus_1"],
        Shaped[np.ndarray, " values"],
        Shaped[np.ndarray, " values"],
    ]:
        """Destinations, starts, values and columns of the part's cells `begin` to `end`, in its own order."""
        rows = end - begin
        destinations = self._section(0, np.dtype(np.int64), begin, rows)
        starts = self._section(self._rows(1), np.dtype(np.int64), begin, rows + 1)
        first, count = int(starts[0]), int(starts[-1] - starts[0])
        values_at = self._rows(4 if self.found.has_logged else 3) + 8
        dtype = np.dtype(self.found.dtype)
        columns_at = values_at + self.found.n_values * dtype.itemsize
        values = self._section(values_at, dtype, first, count)
        return destinations, starts - first, values, self._section(columns_at, self.column_dtype, first, count)

    def _rows(self, number: int) -> int:
        return number * self.found.n_rows * 8

    def _section(self, offset: int, dtype: np.dtype, first: int, count: int) -> np.ndarray:
        path = spill_file(self.folder, self.found.number)
        values = np.fromfile(path, dtype=dtype, count=count, offset=offset + first * dtype.itemsize)
        if len(values) != count:
            record_file(self.folder, self.found.number).unlink(missing_ok=True)  # so that the part is read again
            raise UserError(f"{path} is shorter than when it was written; run the same command again")
        return values


def raw(values: Shaped[np.ndarray, " _"]) -> memoryview:
    """The bytes of an array."""
    return values.view(np.uint8).data


def destination_file(folder: Path) -> Path:
    """Where the store row of every row of every source is, -1 for those left out."""
    return folder / "destinations"


def _destinations(folder: Path, part: Part) -> Int64[np.ndarray, " rows"]:
    try:
        return np.fromfile(destination_file(folder), np.int64, part.stop - part.start, offset=8 * part.first)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is not visible where the task runs, or was deleted; workers on other machines need the "
            "same files under the same paths (--work DIR chooses the folder)"
        ) from None


def _read(part: Part) -> sparse.csr_matrix:
    return part.rows.read(part.start, part.stop)


def _examined(
    part: Part, matrix: sparse.csr_matrix, order: Int64[np.ndarray, " cells"]
) -> tuple[Found, Float[np.ndarray, " _"]]:
    """What the cells kept are like, and their sums of exp(value) - 1 where values are small enough for logarithms."""
    largest, n_broken, broken = _examine(matrix.indptr, matrix.data, np.sort(order))
    top = float(matrix.data[largest]) if largest >= 0 else 0.0
    has_logged = top <= LARGEST_LOG
    totals = np.zeros(len(order) if has_logged else 0)
    if has_logged:
        _sum_of_exp(matrix.indptr, matrix.data, order, totals)
    whole = np.uint16 if top < 2**16 else np.uint32
    found = Found(
        number=part.number,
        source=part.source,
        n_rows=len(order),
        n_values=int(np.diff(matrix.indptr)[order].sum()),
        dtype=np.dtype(np.float32 if n_broken or top > LARGEST_COUNT else whole).name,
        largest=top,
        largest_text=str(matrix.data[largest]) if largest >= 0 else "0",
        largest_place=_place(part, matrix, largest),
        n_broken=int(n_broken),
        broken_text=str(matrix.data[broken]) if broken >= 0 else "",
        broken_place=_place(part, matrix, broken),
        has_logged=has_logged,
    )
    return found, totals


def _place(part: Part, matrix: sparse.csr_matrix, position: int) -> tuple[int, int]:
    if position < 0:
        return -1, -1
    row = int(np.searchsorted(matrix.indptr, position, side="right")) - 1
    return part.start + row, int(matrix.indices[position])


def _taken(
    matrix: sparse.csr_matrix, order: Int64[np.ndarray, " cells"], dtype: np.dtype
) -> tuple[
    Shaped[np.ndarray, " values"],
    Shaped[np.ndarray, " values"],
    Int64[np.ndarray, " cells_plus_1"],
    Float[np.ndarray, " cells"],
]:
    """Values, columns, starts and totals of the rows `order`, in that order."""
    starts = np.concatenate([[0], np.cumsum(np.diff(matrix.indptr)[order], dtype=np.int64)])
    data = np.empty(starts[-1], dtype=dtype)
    indices = np.empty(starts[-1], dtype=column_dtype(matrix.shape[1]))
    totals = np.zeros(len(order))
    _take(matrix.indptr, matrix.indices, matrix.data, order, data, indices, totals)
    return data, indices, starts, totals


# The inner loops are compiled, and not parallel: numba's threads would change how many PyTorch uses.


@njit(nogil=True, cache=True)
@no_type_check
def _examine(indptr, data, rows):
    """Position of the largest value, number of values that are not whole, position of the first; -1 for none."""
    largest, n_broken, broken = -1, 0, -1
    for row in rows:
        for position in range(indptr[row], indptr[row + 1]):
            value = data[position]
            if largest < 0 or value > data[largest]:
                largest = position
            if value != np.floor(value):
                if n_broken == 0:
                    broken = position
                n_broken += 1
    return largest, n_broken, broken


@njit(nogil=True, cache=True)
@no_type_check
def _sum_of_exp(indptr, data, rows, out):
    for i in range(len(rows)):
        total = 0.0
        for position in range(indptr[rows[i]], indptr[rows[i] + 1]):
            total += np.expm1(np.float64(data[position]))
        out[i] = total


@njit(nogil=True, cache=True)
@no_type_check
def _take(indptr, indices, data, rows, out_data, out_indices, out_totals):
    place = 0
    for i in range(len(rows)):
        total = 0.0
        for position in range(indptr[rows[i]], indptr[rows[i] + 1]):
            out_data[place] = data[position]
            out_indices[place] = indices[position]
            total += np.float64(out_data[place])
            place += 1
        out_totals[i] = total
