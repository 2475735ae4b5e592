"""Those who train one model together, each with its own cells of every step, as far as a model has to know of them.

The loss of a worker is its share of the whole: the workers' losses add up to it, and so do their gradients. A mean over
cells is a local sum divided by a count over all workers; a term that every worker holds in full is divided by `count`.
A worker may have no cells in a step: its share is then 0, and reaches the same parameters as any other.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Workers(Protocol):
    """All workers of a training, seen from one of them.

    They must ask for the same things in the same order, with tensors of the same shapes and, in one call, of one type.
    """

    @property
    def count(self) -> int:
        """How many there are."""

    def total(self, *values: Tensor) -> list[Tensor]:
        """Sums over the workers, of each tensor; the same bits for all of them. Nothing flows back through them."""

    def add_up(self, *values: Tensor) -> None:
        """Make each tensor its sum over the workers, in place, without a copy of the large ones."""


class Alone:
    """One process that trains by itself."""

    count = 1

    def total(self, *values: Tensor) -> list[Tensor]:
        """The values themselves."""
        return [value.detach() for value in values]

    def add_up(self, *values: Tensor) -> None:
        """They are sums already."""


ALONE = Alone()


def with_own_gradient(total: Tensor, own: Tensor, workers: Workers) -> Tensor:
    """`total`, whose gradient is that of this worker's `own` part, for a term that is divided by `workers.count`."""
    if workers.count == 1:
        return own
    return total + workers.count * (own - own.detach()) if torch.is_grad_enabled() else total
