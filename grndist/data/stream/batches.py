"""The same step of several replicates: a batch of each, of one shape, as if they were one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from grndist.data.stream.batch import Batch
from grndist.parallel import for_each, pieces


@dataclass(frozen=True)
class Batches:
    """A batch of every replicate, each with cells and random numbers of its own; all have the same genes."""

    each: Sequence[Batch]

    @property
    def genes(self) -> Int64[Tensor, " genes"]:
        """As every batch has them."""
        return self.each[0].genes

    @property
    def epoch(self) -> int:
        """As every batch has it."""
        return self.each[0].epoch

    @cached_property
    def expression(self) -> Float[Tensor, "replicates cells genes"]:
        """A copy of them all."""
        return torch.stack([batch.expression for batch in self.each])

    @cached_property
    def is_nonzero(self) -> Bool[Tensor, "replicates cells genes"]:
        """See `Batch`."""
        if self.each[0].stored_nonzero is None:
            return self.expression != 0
        return torch.stack([batch.is_nonzero for batch in self.each])

    def draw(self, name: str, sample: Callable[[np.random.Generator, slice], np.ndarray]) -> Tensor:
        """What every batch draws under this name; `sample` is called by several threads."""
        found = [torch.empty(0)] * len(self.each)

        def one(at: int, _: slice) -> None:
            found[at] = self.each[at].draw(name, sample)

        for_each(pieces(len(found), 1), one)
        return torch.stack(found)
