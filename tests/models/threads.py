"""Another number of threads for a while."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def in_threads(threads: int, work: Callable[[], T]) -> T:
    """What `work` returns with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return work()
    finally:
        torch.set_num_threads(before)
