"""Every random number in grndist is drawn from `stream(seed, *name)`.

A stream is a pure function of its name, so it does not matter which process draws it, in
what order, or how many other streams exist. There is no generator state to save.
"""

import zlib

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Return the generator called `name` under `seed`, e.g. `stream(7, "cells", epoch)`.

    Words of the name are non-negative integers or strings; a string stands for its CRC-32.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in name]
    return np.random.default_rng([len(words), seed, *words])  # the length, because NumPy ignores trailing zeros
