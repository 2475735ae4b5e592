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

    taken_out: Float[Tensor, "*replicates rows genes"]  # the rows given, without regulation
    z: Float[Tensor, "*replicates cells genes"]
    put_back: Float[Tensor, "*replicates cells genes"]  # what the decoder is given
    size: Float[Tensor, "*replicates"]  # sum of |A|


def structural(
    rows: Float[Tensor, "*replicates rows genes"],
    noise: Float[Tensor, "*replicates cells genes"],
    a: Float[Tensor, "*replicates regulators genes"],
    at: Int64[Tensor, " regulators"] | None,
    factor: Factor,
) -> Latent:
    """The latent layer, z = mean + noise * exp(log-variance / 2), of one model or of several replicates.

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
        cells = noise.shape[-2]
        inputs = _regulators(rows, at)
        taken_out = _plus_product(rows, inputs, a, -1)
        deviation = (0.5 * taken_out[..., cells : 2 * cells, :]).exp()
        z = torch.addcmul(taken_out[..., :cells, :], deviation, noise)
        solved = factor.solve(_regulators(z, at))
        put_back = solved if at is None else _plus_product(z, solved, a, 1)
        ctx.save_for_backward(inputs, noise, a, at, deviation, solved)
        ctx.factor = factor
        # row by row: one sum of genes^2 float32 numbers is half of what it should be at 8,000 genes
        return taken_out, z, put_back, torch.linalg.vector_norm(a, 1, dim=-1).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_taken_out: Tensor, of_z: Tensor, of_put_back: Tensor, of_size: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        inputs, noise, a, at, deviation, solved = ctx.saved_tensors
        cells = noise.shape[-2]
        back = _put_back_adjoint(of_put_back, a, at, ctx.factor)
        of_z = of_z + back
        of_rows = of_taken_out.clone()
        of_rows[..., :cells, :] += of_z
        of_rows[..., cells : 2 * cells, :] += 0.5 * of_z * noise * deviation
        of_a = None
        if ctx.needs_input_grad[2]:
            of_a = torch.cat([solved, -inputs], dim=-2).mT @ torch.cat([back, of_rows], dim=-2)
            _add_signs(of_a, a, at, of_size)
        if ctx.needs_input_grad[0]:
            return _taken_out_adjoint(of_rows, a, at), None, of_a, None, None
        return None, None, of_a, None, None


def _regulators(values: Float[Tensor, "*replicates rows genes"], at: Int64[Tensor, " regulators"] | None) -> Tensor:
    return values if at is None else values[..., at]


def _plus_product(given: Tensor, left: Tensor, right: Tensor, sign: int) -> Tensor:
    """`given` + `sign` `left` `right`, matrix by matrix."""
    return (torch.addmm if given.dim() == 2 else torch.baddbmm)(given, left, right, alpha=sign)


def _put_back_adjoint(
    gradient: Tensor, a: Tensor, at: Tensor | None, factor: Factor
) -> Float[Tensor, "*replicates cells genes"]:
    """`gradient` (I - A)^-T."""
    if at is None:
        return factor.solve_transposed(gradient)
    found = gradient.clone()
    found[..., at] += factor.solve_transposed(gradient @ a.mT)
    return found


def _taken_out_adjoint(gradient: Tensor, a: Tensor, at: Tensor | None) -> Float[Tensor, "*replicates rows genes"]:
    """`gradient` (I - A)^T; overwrites it."""
    if at is None:
        return _plus_product(gradient, gradient, a.mT, -1)
    gradient[..., at] -= gradient @ a.mT
    return gradient


def _add_signs(of_a: Tensor, a: Tensor, at: Tensor | None, of_size: Tensor) -> None:
    """Add the gradient of the size, and make that of self-regulation 0."""
    if a.dim() == 3:
        for each in zip(of_a, a, of_size, strict=True):
            _add_signs(each[0], each[1], at, each[2])
        return
    if of_size != 0:
        for part in pieces(len(a), ROWS):
            of_a[part].addcmul_(a[part].sign(), of_size)
    own = torch.arange(len(a), device=a.device)
    of_a[own, own if at is None else at] = 0
