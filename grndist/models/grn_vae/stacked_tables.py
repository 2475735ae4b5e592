"""`tables` for several replicates at once: a network each, all asked at the same knots.

The knots cover the places of all replicates and are as dense as the worst of them needs, so every table is at least as
good as the one that its network would have by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grndist.models.grn_vae.tables import (
    BEYOND,
    INTERVALS_PER_UNIT,
    PLACES_PER_KNOT,
    errors,
    evenly,
    interleaved,
    interpolated,
)

Layer = tuple[Float[Tensor, "replicates _ _"], Float[Tensor, "replicates _"]]  # weight [.., outputs, inputs], bias


@dataclass(frozen=True)
class Tables:
    """Values of the networks at knots: two before `low`, one every `step`, and two after the end."""

    low: float
    high: float
    step: float
    values: Float[Tensor, "replicates knots outputs"]  # float64
    is_good: Bool[Tensor, " replicates"]  # to the tolerance, in the whole range

    def cover(self, x: Float[Tensor, "replicates ..."]) -> bool:
        """Whether all of these places are in their range."""
        low, high = torch.aminmax(x.detach())
        return bool((low >= self.low) & (high <= self.high))


def outputs(
    layers: Sequence[Layer], x: Float[Tensor, "replicates ..."], tables: Tables | None
) -> Float[Tensor, "replicates outputs ..."]:
    """The networks' outputs for every entry of `x`: by the tables, and directly where there is no good one."""
    if tables is None:
        return evaluate(layers, x)
    found = interpolated(tables.values, x, tables.low, tables.step)
    if bool(tables.is_good.all()):
        return found
    rows = [
        found[at]
        if good
        else evaluate([(weight[at : at + 1], bias[at : at + 1]) for weight, bias in layers], x[at : at + 1])[0]
        for at, good in enumerate(tables.is_good.tolist())
    ]
    return torch.stack(rows)


def tabulated(layers: Sequence[Layer], x: Float[Tensor, "replicates ..."], tolerance: float) -> Tables | None:
    """Tables that are good to `tolerance` wherever `x` is; None where no replicate has one that pays.

    A replicate without one, because its places reach too far or its network bends too much, does not change the others.
    """
    entries = x[0].numel()
    lows, highs = torch.aminmax(x.detach().reshape(len(x), -1), dim=1)
    lows, highs = lows.double().floor(), torch.maximum(highs.double().ceil(), lows.double().floor() + 1)
    intervals = (highs - lows) * INTERVALS_PER_UNIT
    can = 2 * intervals + 1 <= entries // PLACES_PER_KNOT  # false where not finite
    if tolerance == 0 or not bool(can.any()):
        return None
    low, high = float(lows[can].min()), float(highs[can].max())
    n = int((high - low) * INTERVALS_PER_UNIT)
    step, most = (high - low) / n, max(entries // PLACES_PER_KNOT, 2 * n + 1)
    wide = [(weight.double(), bias.double()) for weight, bias in layers]
    values, slopes = with_slopes(wide, evenly(low - BEYOND * step, step, n + 1 + 2 * BEYOND, x.device))
    tables = None
    while 2 * n + 1 <= most:
        middle, middle_slopes = with_slopes(wide, evenly(low - step / 2, step, n + 2, x.device))
        finer, finer_slopes = interleaved(values[:, 1:-1], middle), interleaved(slopes[:, 1:-1], middle_slopes)
        bounds = torch.maximum(*errors(values.detach(), step, finer.detach(), finer_slopes))
        is_good = can & (bounds <= tolerance)
        tables = Tables(low, high, step / 2, finer, is_good)
        if bool((is_good | ~can | ~bounds.isfinite()).all()):
            break
        n, step, values, slopes = 2 * n, step / 2, finer, finer_slopes
    return tables


def evaluate(layers: Sequence[Layer], x: Float[Tensor, "replicates ..."]) -> Float[Tensor, "replicates outputs ..."]:
    """The networks themselves, in the precision of `x`."""
    values = x.reshape(len(x), -1, 1)
    for number, (weight, bias) in enumerate(layers):
        values = _linear(values.tanh() if number else values, weight, bias)
    return values.mT.reshape(len(x), -1, *x.shape[1:])


def with_slopes(
    layers: Sequence[Layer], x: Float[Tensor, " places"]
) -> tuple[Float[Tensor, "replicates places outputs"], Float[Tensor, "replicates places outputs"]]:
    """The networks and their derivatives, of which only the former are differentiable."""
    values = x[:, None].expand(len(layers[0][0]), -1, 1)
    slopes = torch.ones_like(values)
    for number, (weight, bias) in enumerate(layers):
        if number:
            values = values.tanh()
            slopes = slopes * (1 - values.detach().square())
        values, slopes = _linear(values, weight, bias), slopes @ weight.detach().mT
    return values, slopes


def _linear(values: Tensor, weight: Tensor, bias: Tensor) -> Float[Tensor, "replicates places outputs"]:
    return torch.baddbmm(bias[:, None], values, weight.mT)
