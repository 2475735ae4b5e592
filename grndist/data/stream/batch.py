"""One step's data: what a model's `forward` receives, cells or the moments of all of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from grndist.seeds import stream


@dataclass(frozen=True)
class Batch:
    """Cells x genes of one step (or this worker's share of it), and the names of its random numbers."""

    expression: Float[Tensor, "cells genes"]  # after the configured transform
    genes: Int64[Tensor, " genes"]  # the step's gene subset: panel columns, ascending
    perturbed: Int64[Tensor, " cells"]  # panel column of the perturbed gene; CONTROL or UNMAPPED
    labels: Int64[Tensor, " cells"]  # each cell's label, as `View.label_of_cell` numbers them
    shares: tuple[tuple[int, int], ...]  # (logical stream, its number of cells), in the order of the rows
    seed: int
    epoch: int
    step: int  # within the epoch
    stored_nonzero: Bool[Tensor, "cells genes"] | None = None  # given where the transform moves zeros

    @property
    def n_cells(self) -> int:
        """Number of cells (rows)."""
        return len(self.expression)

    @cached_property
    def is_nonzero(self) -> Bool[Tensor, "cells genes"]:
        """Where the stored value, before any transform, is not zero."""
        return self.expression != 0 if self.stored_nonzero is None else self.stored_nonzero

    def draw(self, name: str, sample: Callable[[np.random.Generator, slice], np.ndarray]) -> Tensor:
        """Random numbers called `name` for every row, share by share, so that they do not depend on the workers.

        Args:
            name: what they are for, e.g. "latent".
            sample: called with a share's generator and its rows; returns an array with one row a cell.
        """
        parts, first = [], 0
        for logical, count in self.shares or ((0, 0),):  # a worker without a stream has no cells
            rng = stream(self.seed, name, self.epoch, self.step, logical)
            parts.append(sample(rng, slice(first, first + count)))
            first += count
        return torch.from_numpy(np.concatenate(parts)).to(self.expression.device)


@dataclass(frozen=True)
class MomentsBatch:
    """Second moments over all cells of one step's genes: all that a linear model with a squared loss needs to know.

    Inputs are the step's genes, in order, and then every perturbed gene that was not measured; targets are its genes.
    """

    second: Float[Tensor, "inputs inputs"]  # E[x x^T]
    cross: Float[Tensor, "targets inputs"]  # E[z x^T]
    target_square: Float[Tensor, " targets"]  # E[z^2]
    genes: Int64[Tensor, " targets"]  # panel columns, ascending
    n_cells: int
    epoch: int
    step: int  # within the epoch

    def subset(self, genes: Int64[Tensor, " genes"]) -> "MomentsBatch":
        """Those of some genes, given by ascending panel columns, and of every unmeasured input."""
        n_genes = len(self.cross)
        unmeasured = torch.arange(n_genes, len(self.second), device=genes.device)
        inputs = torch.cat([genes, unmeasured])
        return replace(
            self,
            second=self.second[inputs[:, None], inputs],
            cross=self.cross[genes[:, None], inputs],
            target_square=self.target_square[genes],
            genes=genes,
        )

    def to(self, device: torch.device) -> "MomentsBatch":
        """The same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("second", "cross", "target_square", "genes")}
        return replace(self, **moved)
