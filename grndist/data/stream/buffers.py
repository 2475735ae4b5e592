"""Memory that is used again: fresh pages for every batch would cost as much as filling them."""

import sys
import threading

import numpy as np
from jaxtyping import Shaped

_lonely = [np.empty(0)]
UNUSED = sys.getrefcount(_lonely[0])  # what it counts for an array that only its list refers to
SPARE = 1.1  # room for the next, slightly larger one


class Buffers:
    """Hands out arrays whose memory may have been used before, and takes it back once nobody refers to it.

    An array, a view of it or a tensor made from it (`torch.from_numpy`) keeps the memory for itself as long as it
    lives; there is nothing to give back. Values are whatever was there.
    """

    def __init__(self) -> None:
        self._arrays: dict[np.dtype, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, " ..."]:
        """An array of this shape and type."""
        size = int(np.prod(shape))
        with self._lock:
            array = self._unused(size, np.dtype(dtype))
            return array[:size].reshape(shape)

    def _unused(self, size: int, dtype: np.dtype) -> np.ndarray:
        arrays = self._arrays.setdefault(dtype, [])
        unused = [at for at in range(len(arrays)) if sys.getrefcount(arrays[at]) == UNUSED]
        for at in unused:
            if len(arrays[at]) >= size:
                return arrays[at]
        for at in reversed(unused):  # too small, all of them: the next ones will be no smaller
            del arrays[at]
        arrays.append(np.empty(int(size * SPARE) + 1, dtype=dtype))
        return arrays[-1]

    def held(self) -> int:
        """Bytes of all arrays that are or were handed out and not forgotten."""
        with self._lock:
            return sum(array.nbytes for arrays in self._arrays.values() for array in arrays)
