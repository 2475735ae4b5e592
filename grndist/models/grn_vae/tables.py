"""Scalar networks by table: a network of ONE number, asked at many places, is asked at a few knots instead.

Between knots it is the polynomial through the six nearest (Lagrange). That is linear in the knots' values, so the
gradient of the interpolant is exact, with respect to the network's parameters and to the places. Knots are in float64,
whatever the places are in: a slope is a difference of neighbours.

How good a table is, is measured: a table is halved, and what it then says at the knots that were left out, the
midpoints of its intervals, is compared with what the network says; its slopes at the ends of its intervals, too, where
they are worst. Without the halving it is better still (64 times for values, 32 for slopes, in theory), so the figure is
a bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from grndist.models.grn_vae.table_kernels import add_powers, polynomial, polynomial_slope
from grndist.parallel import for_each, pieces

INTERVALS_PER_UNIT = 8  # of the first, coarsest table
PLACES_PER_KNOT = 4  # with fewer places the network itself is no dearer
PIECE = 32_768  # places that one thread does at a time
BEYOND = 2  # knots before the first interval, and after the last
# From the values at six neighbouring knots to the coefficients of 1, t, ..., t^5 between the middle two.
LAGRANGE = torch.linalg.inv(torch.vander(torch.arange(-2.0, 4.0, dtype=torch.float64), increasing=True))


@dataclass(frozen=True)
class Table:
    """Values of a network at knots: two before `low`, one every `step`, and two after the end."""

    low: float
    step: float
    values: Float[Tensor, "knots outputs"]  # float64
    value_bound: float  # largest error, relative to the largest value
    slope_bound: float  # ... of the derivative, relative to the largest

    @property
    def bound(self) -> float:
        """The larger of the two."""
        return max(self.value_bound, self.slope_bound)

    def at(self, x: Float[Tensor, "..."]) -> Float[Tensor, "outputs ..."]:
        """The interpolated outputs at places inside the table's range."""
        return interpolated(self.values[None], x[None], self.low, self.step)[0]


def tabulated(network: nn.Sequential, x: Float[Tensor, "..."], tolerance: float) -> Table | None:
    """A table that is good to `tolerance` wherever `x` is; None where it would have too many knots to pay.

    Args:
        network: Linear layers and tanh, of one number, or of one number and a constant 1.
        x: where it will be asked.
        tolerance: largest error of values and of slopes, relative to the largest of each.
    """
    if x.numel() == 0:
        return None
    low, high = (float(end) for end in torch.aminmax(x.detach()))
    if not np.isfinite([low, high]).all():
        return None
    low, high = float(np.floor(low)), max(float(np.ceil(high)), float(np.floor(low)) + 1)
    n, most = int((high - low) * INTERVALS_PER_UNIT), x.numel() // PLACES_PER_KNOT
    if 2 * n + 1 > most:
        return None
    step = (high - low) / n
    values, slopes = with_slopes(network, evenly(low - BEYOND * step, step, n + 1 + 2 * BEYOND, x.device))
    while 2 * n + 1 <= most:
        middle, middle_slopes = with_slopes(network, evenly(low - step / 2, step, n + 2, x.device))
        finer, finer_slopes = interleaved(values[1:-1], middle), interleaved(slopes[1:-1], middle_slopes)
        bounds = errors(values.detach(), step, finer.detach(), finer_slopes)
        table = Table(low, step / 2, finer, *(float(bound) for bound in bounds))
        if table.bound <= tolerance:
            return table
        n, step, values, slopes = 2 * n, step / 2, finer, finer_slopes
    return None


def evaluate(network: nn.Sequential, x: Float[Tensor, "..."]) -> Float[Tensor, "... outputs"]:
    """The network itself, in the precision of `x`."""
    values = x[..., None]
    for layer in network:
        values = nn.functional.linear(values, *_of_one_number(layer, values)) if _is_linear(layer) else layer(values)
    return values


def with_slopes(
    network: nn.Sequential, x: Float[Tensor, " places"]
) -> tuple[Float[Tensor, "places outputs"], Float[Tensor, "places outputs"]]:
    """The network and its derivative, of which only the former is differentiable with respect to the parameters."""
    values, slopes = x[:, None], torch.ones_like(x)[:, None]
    for layer in network:
        if _is_linear(layer):
            weight, bias = _of_one_number(layer, values)
            values, slopes = nn.functional.linear(values, weight, bias), slopes @ weight.detach().T
        else:
            values = values.tanh()
            slopes = slopes * (1 - values.detach().square())
    return values, slopes


def _is_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(layer, nn.Linear)


def _of_one_number(layer: nn.Linear, inputs: Float[Tensor, "... channels"]) -> tuple[Tensor, Tensor]:
    """Weight and bias in the precision of the inputs; a last input that is not among them is 1."""
    given = inputs.shape[-1]
    weight, bias = layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype)
    return (weight, bias) if weight.shape[1] == given else (weight[:, :given], bias + weight[:, given:].sum(1))


def evenly(first: float, step: float, count: int, device: torch.device) -> Float[Tensor, " places"]:
    """`count` places from `first` on, `step` apart."""
    return first + step * torch.arange(count, dtype=torch.float64, device=device)


def interleaved(
    outer: Float[Tensor, "*replicates knots outputs"], inner: Float[Tensor, "*replicates others outputs"]
) -> Float[Tensor, "*replicates all outputs"]:
    """Rows of `outer` and `inner` in turn; `outer` has one more."""
    pairs = torch.stack([outer[..., :-1, :], inner], dim=-2).flatten(-3, -2)
    return torch.cat([pairs, outer[..., -1:, :]], dim=-2)


def errors(
    values: Float[Tensor, "*replicates knots outputs"],
    step: float,
    finer: Float[Tensor, "*replicates others outputs"],
    slopes: Float[Tensor, "*replicates others outputs"],
) -> tuple[Float[Tensor, "*replicates"], Float[Tensor, "*replicates"]]:
    """Largest relative error of a table's values at the midpoints of its intervals, of its slopes there and at ends.

    Args:
        values: the table.
        step: between its knots.
        finer: what the network says at its knots and midpoints, and two places further at either end.
        slopes: its derivative there.
    """
    coefficients = values.unfold(-2, 6, 1) @ LAGRANGE.to(values.device).T
    powers = torch.arange(6, dtype=values.dtype, device=values.device)
    n, inside = coefficients.shape[-3], slopes[..., BEYOND:-BEYOND, :]
    at_start_middle_end = [
        coefficients[..., 1:] @ (powers[1:] * t ** (powers[1:] - 1)) / step
        - inside[..., first : first + 2 * n - 1 : 2, :]
        for first, t in enumerate((0.0, 0.5, 1.0))
    ]
    value = coefficients @ 0.5**powers - finer[..., BEYOND + 1 : -BEYOND - 1 : 2, :]
    return _relative(value, finer), _relative(torch.cat(at_start_middle_end, dim=-2), inside)


def _relative(
    error: Float[Tensor, "*replicates places outputs"], values: Float[Tensor, "*replicates others outputs"]
) -> Float[Tensor, "*replicates"]:
    return error.abs().amax((-2, -1)) / values.abs().amax((-2, -1)).clamp_min(torch.finfo(values.dtype).tiny)


def interpolated(
    values: Float[Tensor, "replicates knots outputs"], x: Float[Tensor, "replicates ..."], low: float, step: float
) -> Float[Tensor, "replicates outputs ..."]:
    """What tables on the same knots, of a network each, say at places of their own."""
    return _Interpolated.apply(values, x, low, step)


class _Interpolated(torch.autograd.Function):
    """A table's polynomials at many places."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, low: float, step: float) -> Tensor:
        windows = values.unfold(1, 6, 1)  # [replicates, intervals, outputs, 6 neighbours]
        coefficients = windows @ LAGRANGE.to(values.device).T
        ctx.save_for_backward(x, coefficients)
        ctx.low, ctx.steps = low, 1 / step
        out = x.new_empty(len(x), values.shape[2], x[0].numel())
        flat = x.reshape(len(x), -1)
        if x.device.type == "cpu":
            places, found, polynomials = flat.numpy(), out.numpy(), coefficients.numpy()
            _for_each_part(
                flat, PIECE,
                lambda of, _, part: polynomial(places[of, part], low, ctx.steps, polynomials[of], found[of, :, part]),
            )  # fmt: skip
        else:
            for one_x, one, found_one in zip(flat, coefficients, out, strict=True):
                interval, t = _position(one_x, low, ctx.steps, len(one))
                found_one.copy_((one[interval] * _powers_of(t)[:, None]).sum(2).T)
        return out.reshape(len(x), -1, *x.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, coefficients = ctx.saved_tensors
        flat, upstream = x.reshape(len(x), -1), gradient.flatten(2).contiguous()
        of_values = of_x = None
        if ctx.needs_input_grad[0]:
            of_values = _to_knots(_powers(flat, ctx.low, ctx.steps, upstream, coefficients))
        if ctx.needs_input_grad[1]:
            of_x = _slopes(flat, ctx.low, ctx.steps, upstream, coefficients).reshape(x.shape)
        return of_values, of_x, None, None


def _for_each_part(x: Float[Tensor, "replicates places"], size: int, work: Callable[[int, int, slice], None]) -> None:
    """Call `work(replicate, number, part)` for every part of `size` places of every replicate."""
    parts = pieces(x.shape[1], size)
    tasks = [(of, number) for of in range(len(x)) for number in range(len(parts))]
    for_each(pieces(len(tasks), 1), lambda at, _: work(*tasks[at], parts[tasks[at][1]]))


def _slopes(x: Tensor, low: float, steps: float, upstream: Tensor, coefficients: Tensor) -> Tensor:
    out = torch.empty_like(x)
    if x.device.type == "cpu":
        places, given, found, c = x.numpy(), upstream.numpy(), out.numpy(), coefficients.numpy()
        _for_each_part(
            x, PIECE,
            lambda of, _, part: polynomial_slope(
                places[of, part], low, steps, c[of], given[of, :, part], found[of, part]
            ),
        )  # fmt: skip
        return out
    for one_x, one_up, one, found_one in zip(x, upstream, coefficients, out, strict=True):
        interval, t = _position(one_x, low, steps, len(one))
        slopes = one[interval, :, 1:] * (torch.arange(1, 6, device=x.device) * _powers_of(t)[:, :-1])[:, None]
        found_one.copy_((one_up.T * slopes.sum(2)).sum(1) * steps)
    return out


def _powers(x: Tensor, low: float, steps: float, upstream: Tensor, coefficients: Tensor) -> Tensor:
    """Gradient with respect to the coefficients, of their shape; same bits for any number of threads."""
    if x.device.type == "cpu":
        places, given = x.numpy(), upstream.numpy()
        size = max(PIECE, -(-x.shape[1] // 16))
        sums = np.zeros((len(x), len(pieces(x.shape[1], size)), *coefficients.shape[1:]))
        _for_each_part(
            x, size,
            lambda of, number, part: add_powers(places[of, part], low, steps, given[of, :, part], sums[of, number]),
        )  # fmt: skip
        return torch.from_numpy(sums.sum(1))
    found = torch.zeros_like(coefficients)
    for one_x, one_up, found_one in zip(x, upstream, found, strict=True):
        interval, t = _position(one_x, low, steps, len(found_one))
        found_one.index_add_(0, interval, one_up.T[:, :, None] * _powers_of(t)[:, None])
    return found


def _powers_of(t: Float[Tensor, " places"]) -> Float[Tensor, "places powers"]:
    return t[:, None] ** torch.arange(6, device=t.device)


def _position(x: Tensor, low: float, steps: float, n_intervals: int) -> tuple[Tensor, Tensor]:
    position = (x.double() - low) * steps
    interval = position.long().clamp(0, n_intervals - 1)
    return interval, position - interval


def _to_knots(
    of_coefficients: Float[Tensor, "replicates intervals outputs powers"],
) -> Float[Tensor, "replicates knots outputs"]:
    """From the gradient of every interval's coefficients to that of the knots they were made of."""
    windows = of_coefficients @ LAGRANGE.to(of_coefficients.device)
    replicates, n, outputs, neighbours = windows.shape
    found = windows.new_zeros(replicates, n + neighbours - 1, outputs)
    for offset in range(neighbours):
        found[:, offset : offset + n] += windows[..., offset]
    return found
