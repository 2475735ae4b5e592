"""The structural equations: regulation taken out of the latent layer, and put back. One gradient of A for both.

Row by row, out(x) = x - x_R A and back(z) = z (I - A)^-1, where A has a row a regulator R and a column a gene. Only
regulators can be inputs, so back(z) = z + w A with w = z_R (I - A_RR)^-1: what is factorised has a row a regulator. The
gradient of A is two products of thin matrices; they are computed as one.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from grndist.models.grn_vae.solve import Factor
from grndist.parallel import pieces

ROWS = 64  # of A that are handled while they are in the cache


class Latent(NamedTuple):
    """The latent layer of a batch."""

    taken_out: Float[Tensor, "rows genes"]  # the rows given, without regulation
    z: Float[Tensor, "cells genes"]
    put_back: Float[Tensor, "cells genes"]  # what the decoder is given
    size: Float[Tensor, ""]  # sum of |A|


def structural(
    rows: Float[Tensor, "rows genes"],
    noise: Float[Tensor, "cells genes"],
    a: Float[Tensor, "regulators genes"],
    at: Int64[Tensor, " regulators"] | None,
    factor: Factor,
) -> Latent:
    """The latent layer, z = mean + noise * exp(log-variance / 2).

    Args:
        rows: means of all cells, then their log-variances, then any others from which regulation is taken out.
        noise: standard normal.
        a: 0 where a regulator meets itself.
        at: columns of the regulators; None: every gene is one.
        factor: of I - A_RR.
    """
    return Latent(*_Structural.apply(rows, noise, a, at, factor))


class _Structural(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, noise: Tensor, a: Tensor, at: Tensor | None, factor: Factor) -> tuple[Any, ...]:
        cells = len(noise)
        inputs = _regulators(rows, at)
        taken_out = torch.addmm(rows, inputs, a, alpha=-1)
        deviation = (0.5 * taken_out[cells : 2 * cells]).exp()
        z = torch.addcmul(taken_out[:cells], deviation, noise)
        solved = factor.solve(_regulators(z, at))
        put_back = solved if at is None else torch.addmm(z, solved, a)
        ctx.save_for_backward(inputs, noise, a, at, deviation, solved)
        ctx.factor = factor
        # row by row: one sum of genes^2 float32 numbers is half of what it should be at 8,000 genes
        return taken_out, z, put_back, torch.linalg.vector_norm(a, 1, dim=1).sum()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_taken_out: Tensor, of_z: Tensor, of_put_back: Tensor, of_size: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        inputs, noise, a, at, deviation, solved = ctx.saved_tensors
        cells = len(noise)
        back = _put_back_adjoint(of_put_back, a, at, ctx.factor)
        of_z = of_z + back
        of_rows = of_taken_out.clone()
        of_rows[:cells] += of_z
        of_rows[cells : 2 * cells] += 0.5 * of_z * noise * deviation
        of_a = None
        if ctx.needs_input_grad[2]:
            of_a = torch.cat([solved, -inputs]).T @ torch.cat([back, of_rows])
            _add_signs(of_a, a, at, of_size)
        if ctx.needs_input_grad[0]:
            return _taken_out_adjoint(of_rows, a, at), None, of_a, None, None
        return None, None, of_a, None, None


def _regulators(values: Float[Tensor, "rows genes"], at: Int64[Tensor, " regulators"] | None) -> Tensor:
    return values if at is None else values[:, at]


def _put_back_adjoint(gradient: Tensor, a: Tensor, at: Tensor | None, factor: Factor) -> Float[Tensor, "cells genes"]:
    """`gradient` (I - A)^-T."""
    if at is None:
        return factor.solve_transposed(gradient)
    found = gradient.clone()
    found[:, at] += factor.solve_transposed(gradient @ a.T)
    return found


def _taken_out_adjoint(gradient: Tensor, a: Tensor, at: Tensor | None) -> Float[Tensor, "rows genes"]:
    """`gradient` (I - A)^T; overwrites it."""
    if at is None:
        return torch.addmm(gradient, gradient, a.T, alpha=-1)
    gradient[:, at] -= gradient @ a.T
    return gradient


def _add_signs(of_a: Tensor, a: Tensor, at: Tensor | None, of_size: Tensor) -> None:
    """Add the gradient of the size, and make that of self-regulation 0."""
    if of_size != 0:
        for part in pieces(len(a), ROWS):
            of_a[part].addcmul_(a[part].sign(), of_size)
    own = torch.arange(len(a), device=a.device)
    of_a[own, own if at is None else at] = 0
