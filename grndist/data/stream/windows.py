"""Windows of cells, decoded ahead of their use: one local Dask task for each, into memory that is used again."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import dask
import numpy as np
from jaxtyping import Int64, Shaped

from grndist.data.store import Store
from grndist.data.stream.buffers import Buffers
from grndist.data.stream.plan import Cells
from grndist.machine import available_cpus


class Key(NamedTuple):
    """Names a window of a plan."""

    epoch: int
    logical: int
    number: int


@dataclass(frozen=True)
class Window:
    """Cells of a store as CSR: values and columns of row i are at indptr[i] : indptr[i + 1]."""

    cells: Cells  # ascending
    data: Shaped[np.ndarray, " values"]
    indices: Shaped[np.ndarray, " values"]
    indptr: Int64[np.ndarray, " cells_plus_1"]

    def places(self, cells: Cells) -> Int64[np.ndarray, " _"]:
        """Rows of this window in which `cells`, all of them in it, are."""
        return np.searchsorted(self.cells, cells)


def read_window(store: Store, cells: Cells, rows: Cells, buffers: Buffers) -> Window:
    """Decode cells that lie in `rows` of the store.

    Raises:
        StoreError: the store is damaged.
    """
    indptr = store.lengths(rows)
    data, indices = (buffers.take((int(indptr[-1]),), dtype) for dtype in store.dtypes)
    store.read_into(rows, data, indices)
    return Window(cells, data, indices, indptr)


@dataclass
class Windows:
    """Holds the windows in use and decodes those that come next in the background."""

    read: Callable[[Key], Window]
    ahead: bool = True  # false: in the caller's thread, when they are asked for
    threads: int = max(available_cpus() // 2, 1)
    _coming: dict[Key, Future[dict[Key, Window]]] = field(default_factory=dict)
    _here: dict[Key, Window] = field(default_factory=dict)
    _background: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "windows"))

    def get(self, wanted: Sequence[Key], following: Sequence[Key]) -> list[Window]:
        """The wanted windows; all others but `following` are forgotten, and those are begun."""
        self._forget({*wanted, *following})
        self._begin([key for key in wanted if key not in self._here])
        for key in wanted:
            if key not in self._here:
                self._arrive(key)
        if self.ahead:
            self._begin(following)
        return [self._here[key] for key in wanted]

    def _forget(self, keep: set[Key]) -> None:
        self._here = {key: window for key, window in self._here.items() if key in keep}
        kept = {key: future for key, future in self._coming.items() if key in keep}
        for future in self._coming.values():
            if future not in kept.values():
                future.cancel()  # if it has not begun
        self._coming = kept

    def _begin(self, keys: Sequence[Key]) -> None:
        new = [key for key in keys if key not in self._here and key not in self._coming]
        if not self.ahead:
            self._here |= {key: self.read(key) for key in new}
        elif new:
            future = self._background.submit(self._decode, new)
            self._coming |= dict.fromkeys(new, future)

    def _decode(self, keys: Sequence[Key]) -> dict[Key, Window]:
        tasks = [dask.delayed(self.read, traverse=False)(key) for key in keys]
        return dict(zip(keys, dask.compute(*tasks, scheduler="threads", num_workers=self.threads), strict=True))

    def _arrive(self, key: Key) -> None:
        future = self._coming[key]
        arriving = [other for other, its in self._coming.items() if its is future]
        for other in arriving:
            del self._coming[other]  # whether it can be decoded or not: the next step may try again
        decoded = future.result()
        self._here |= {other: decoded[other] for other in arriving}
