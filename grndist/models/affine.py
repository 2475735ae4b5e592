"""Affine fields: activations that are affine in expression, kept as numbers of genes and channels instead of cells.

Up to its one non-linearity, every layer of CaTran maps h[c, g, k] = level[g, k] + y[c, g] slope[k] to the same form.
y is expression, its mean over the cells taken off (the level absorbs it), mixed over genes: y = x' mixing^T. So the
mean and the variance of every channel over cells and genes follow from level, slope and the covariance of x', which
needs no gradient.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn

from grndist.workers import ALONE, Workers


@dataclass(frozen=True)
class Moments:
    """Of one batch of expression, over its cells."""

    n_cells: int
    mean: Float[Tensor, " genes"]
    covariance: Float[Tensor, "genes genes"]  # divided by the number of cells

    @classmethod
    def of(cls, x: Float[Tensor, "cells genes"]) -> tuple["Moments", Float[Tensor, "cells genes"]]:
        """The moments, and `x` without its mean."""
        return cls.around(x.mean(0), len(x), x, ALONE)

    @classmethod
    def around(
        cls, mean: Float[Tensor, " genes"], n_cells: int, x: Float[Tensor, "cells genes"], workers: Workers
    ) -> tuple["Moments", Float[Tensor, "cells genes"]]:
        """As `of`, over the cells of all workers, whose mean and number are given; `x` are this worker's own.

        Raw counts in float32 need the centred form.
        """
        centred = x - mean
        return cls(n_cells, mean, _total(centred.T @ centred, workers) / n_cells), centred


def _total(symmetric: Float[Tensor, "genes genes"], workers: Workers) -> Float[Tensor, "genes genes"]:
    """Sum over the workers; only one triangle travels."""
    if workers.count == 1:
        return symmetric
    upper, place = _triangle(len(symmetric), symmetric.device)
    (total,) = workers.total(symmetric.flatten().index_select(0, upper))
    return total.index_select(0, place).view_as(symmetric)


@lru_cache(maxsize=1)  # the same for every step
def _triangle(n: int, device: torch.device) -> tuple[Int32[Tensor, " upper"], Int32[Tensor, " all"]]:
    """Where the upper triangle of a symmetric n x n matrix lies in it, flat; and where each entry lies in that."""
    row, column = torch.triu_indices(n, n, dtype=torch.int32, device=device)
    place = torch.empty(n, n, dtype=torch.int32, device=device)
    place[row, column] = place[column, row] = torch.arange(len(row), dtype=torch.int32, device=device)
    return row * n + column, place.flatten()


@dataclass(frozen=True)
class AffineField:
    """h[c, g, k] = level[g, k] + y[c, g] slope[k], where y has mean 0 over the cells."""

    level: Float[Tensor, "genes d"]
    slope: Float[Tensor, " d"]
    variance: Float[Tensor, ""]  # of y over the cells, mean over the genes
    n_cells: int

    def linear(self, layer: nn.Linear) -> "AffineField":
        """The field after h W^T + b."""
        return replace(self, level=layer(self.level), slope=layer.weight @ self.slope)

    def mixed(
        self, attention: Float[Tensor, "genes genes"], scale: Float[Tensor, ""], variance: Float[Tensor, ""]
    ) -> "AffineField":
        """The field after h[c, t] = sum_s attention[t, s] h[c, s].

        `variance` is that of the new y, which is the old one mixed with attention / scale.
        """
        return replace(self, level=attention @ self.level, slope=self.slope * scale, variance=variance)

    def normalised(self, norm: nn.BatchNorm1d) -> "AffineField":
        """The field after BatchNorm over the channels, statistics pooled over cells and genes.

        As nn.BatchNorm1d: in training by the batch's own statistics, which also move the running ones; else by those.
        """
        mean, variance = self._statistics(norm)
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return replace(self, level=(self.level - mean) * scale + norm.bias, slope=self.slope * scale)

    def _statistics(self, norm: nn.BatchNorm1d) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        if not norm.training:
            return norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        mean = self.level.mean(0)
        variance = (self.level - mean).square().mean(0) + self.slope.square() * self.variance
        _update(norm, mean.detach(), variance.detach(), self.n_cells * len(self.level))
        return mean, variance


def _update(norm: nn.BatchNorm1d, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"], n: int) -> None:
    unbiased = variance * (n / max(n - 1, 1))
    with torch.no_grad():
        norm.get_buffer("num_batches_tracked").add_(1)
        for name, value in (("running_mean", mean), ("running_var", unbiased)):
            running = norm.get_buffer(name)
            running.add_((norm.momentum or 0.0) * (value - running))
