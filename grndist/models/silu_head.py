"""A sum of SiLUs of an affine field, out[c, g] = bias + sum_k weight[k] SiLU(level[g, k] + y[c, g] slope[k]), fused.

Nothing of size cells x genes x d is stored: the backward pass computes the SiLU again. On a CPU numba's kernels do it,
on a GPU `torch.compile` (Triton); where neither can, plain PyTorch does, in tiles of cells.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from grndist.models import silu_kernels
from grndist.parallel import for_each, pieces

CELLS_PER_PART = 128  # a part's own sums of the gradient are added up in the order of the parts
TILE = 2**22  # numbers of one tile of the PyTorch form

logger = logging.getLogger(__name__)


def silu_head(
    y: Float[Tensor, "cells genes"],
    level: Float[Tensor, "genes d"],
    slope: Float[Tensor, " d"],
    weight: Float[Tensor, " d"],
    bias: Float[Tensor, ""],
) -> Float[Tensor, "cells genes"]:
    """The head's output, differentiable once in every argument.

    On a CPU the bits do not depend on the number of threads.
    """
    return _Head.apply(y.contiguous(), level.contiguous(), slope.contiguous(), weight.contiguous(), bias)


def expression(y: Tensor, level: Tensor, slope: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition: what the other forms compute."""
    return bias + (torch.nn.functional.silu(level + y[:, :, None] * slope) * weight).sum(2)


def gradient(
    d_out: Tensor, y: Tensor, level: Tensor, slope: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `expression` with respect to y, level, slope and weight."""
    z = level + y[:, :, None] * slope  # [cells, genes, d]
    s = z.sigmoid()
    silu = z * s
    d_z = d_out[:, :, None] * weight * (s + silu * (1 - s))
    d_slope, d_weight = (d_z * y[:, :, None]).sum((0, 1)), (d_out[:, :, None] * silu).sum((0, 1))
    return (d_z * slope).sum(2), d_z.sum(0), d_slope, d_weight


class _Form(NamedTuple):
    """One way to compute the head and its gradient."""

    head: Callable[..., Tensor]
    gradient: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, level: Tensor, slope: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(y, level, slope, weight)
        return _form_for(y).head(y, level, slope, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, ...]:
        return (*_form_for(d_out).gradient(d_out.contiguous(), *ctx.saved_tensors), d_out.sum())


def _form_for(tensor: Tensor) -> _Form:
    if tensor.device.type == "cpu" and tensor.dtype in {torch.float32, torch.float64}:
        return NUMBA
    return COMPILED if tensor.device.type == "cuda" else TILED


def _numba_head(y: Tensor, level: Tensor, slope: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    of_cells, out = y.numpy(force=True), torch.empty_like(y).numpy(force=True)
    inputs = [tensor.numpy(force=True) for tensor in (level.T.contiguous(), slope, weight)]
    at_zero = bias.numpy(force=True)[()]

    def part(_: int, cells: slice) -> None:
        silu_kernels.head(of_cells[cells], *inputs, at_zero, out[cells])

    for_each(pieces(len(out), CELLS_PER_PART), part)
    return torch.from_numpy(out)


def _numba_gradient(
    d_out: Tensor, y: Tensor, level: Tensor, slope: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = pieces(len(y), CELLS_PER_PART)
    of_cells = [tensor.numpy(force=True) for tensor in (d_out, y, torch.empty_like(y))]
    inputs = [tensor.numpy(force=True) for tensor in (level.T.contiguous(), slope, weight)]
    of_level = np.zeros((len(parts), *inputs[0].shape), dtype=inputs[0].dtype)
    of_slope, of_weight = np.zeros((2, len(parts), len(slope)))

    def part(number: int, cells: slice) -> None:
        d_out_part, y_part, d_y_part = (array[cells] for array in of_cells)
        sums = (of_level[number], of_slope[number], of_weight[number])
        silu_kernels.head_gradient(d_out_part, y_part, *inputs, d_y_part, *sums)

    for_each(parts, part)
    d_level, d_slope, d_weight = (torch.from_numpy(sums.sum(0)).to(y) for sums in (of_level, of_slope, of_weight))
    return torch.from_numpy(of_cells[2]), d_level.T, d_slope, d_weight


def _tiled_head(y: Tensor, level: Tensor, *others: Tensor) -> Tensor:
    tiles = pieces(len(y), max(1, TILE // level.numel()))
    return torch.cat([expression(y[cells], level, *others) for cells in tiles])


def _tiled_gradient(d_out: Tensor, y: Tensor, level: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tiles = pieces(len(y), max(1, TILE // level.numel()))
    d_y, *sums = zip(*(gradient(d_out[cells], y[cells], level, *others) for cells in tiles), strict=True)
    d_level, d_slope, d_weight = (torch.stack(parts).sum(0) for parts in sums)
    return torch.cat(d_y), d_level, d_slope, d_weight


class _Compiled:
    """A function through `torch.compile`; where that fails, logged once, another one takes its place for good."""

    def __init__(self, function: Callable[..., Any], otherwise: Callable[..., Any]):
        self.function, self.otherwise = function, otherwise
        self.compiled: Callable[..., Any] | None = None  # made at the first call: the compiler takes long to import
        self.works = True

    def __call__(self, *tensors: Tensor) -> Any:
        if self.works:
            try:
                self.compiled = self.compiled or torch.compile(self.function, fullgraph=True)
                return self.compiled(*tensors)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as problem:  # every failure of the compiler is one
                logger.warning("torch.compile failed, so a slower form is used: %s", problem)
                self.works = False
        return self.otherwise(*tensors)


NUMBA = _Form(_numba_head, _numba_gradient)
TILED = _Form(_tiled_head, _tiled_gradient)
COMPILED = _Form(_Compiled(expression, _tiled_head), _Compiled(gradient, _tiled_gradient))
