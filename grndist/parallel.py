"""Parts of a computation on several CPU threads: compiled kernels release Python's lock, so plain threads do.

There are as many threads as PyTorch uses. The caller cuts the work into parts that depend on its size alone and adds
up what they give in a fixed order, so results are the same bits for any number of threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def pieces(n: int, size: int) -> list[slice]:
    """0 .. n cut into slices of `size`; the last one may be shorter."""
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def for_each(parts: list[slice], work: Callable[[int, slice], None]) -> None:
    """Call `work(number, part)` for every part, on PyTorch's number of threads."""
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1:
        for number, part in enumerate(parts):
            work(number, part)
    else:
        list(_pool(os.getpid(), threads).map(work, range(len(parts)), parts))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # threads do not survive a fork: one pool a process
    return ThreadPoolExecutor(threads, thread_name_prefix=f"grndist-{process}")
