"""The restoration errors of a batch, only as the sums that the losses need; fused, so no error is ever stored."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from grndist.models.catran import kernels
from grndist.objectives import huber
from grndist.parallel import for_each, pieces

CELLS_PER_PART, GENES_PER_PART = 128, 64


class ErrorSums(NamedTuple):
    """Sums of Huber errors."""

    hidden: Float[Tensor, ""]
    visible: Float[Tensor, ""]
    by_group: Float[Tensor, "rows genes"]  # over hidden and visible entries of the cells of a group


def error_sums(
    predicted: Float[Tensor, "cells genes"],
    wanted: Float[Tensor, "cells genes"],
    hidden: Bool[Tensor, "cells genes"],
    row: Int64[Tensor, " cells"],
    n_rows: int,
    delta: float,
) -> ErrorSums:
    """Sums of the Huber errors of `predicted`, differentiable once; cell c belongs to group `row[c]` of `n_rows`."""
    if predicted.device.type == "cpu" and predicted.dtype == wanted.dtype:
        return ErrorSums(*_ErrorSums.apply(predicted, wanted, hidden, row, n_rows, delta))
    error = huber(predicted - wanted, delta)
    by_group = error.new_zeros(n_rows, error.shape[1]).index_add(0, row, error)
    of_hidden = (error * hidden).sum()
    return ErrorSums(of_hidden, error.sum() - of_hidden, by_group)


class _ErrorSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, wanted: Tensor, hidden: Tensor, row: Tensor, n_rows: int, delta: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(predicted, wanted, hidden, row)
        ctx.delta = delta
        arrays = _arrays(predicted, wanted, hidden, row)
        bound = arrays[0].dtype.type(delta)
        parts = pieces(predicted.shape[1], GENES_PER_PART)
        by_group, totals = np.zeros((n_rows, predicted.shape[1])), np.zeros((len(parts), 2))

        def part(number: int, genes: slice) -> None:
            kernels.error_sums(*arrays, bound, genes.start, genes.stop, by_group, totals[number])

        for_each(parts, part)
        of_hidden, of_visible = torch.from_numpy(totals.sum(0)).to(predicted.dtype).unbind()
        return of_hidden, of_visible, torch.from_numpy(by_group).to(predicted.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor, d_visible: Tensor, d_by_group: Tensor) -> tuple[Tensor | None, ...]:
        arrays = _arrays(*ctx.saved_tensors)
        bound = arrays[0].dtype.type(ctx.delta)
        factors = (d_hidden.item(), d_visible.item(), *_arrays(d_by_group))
        d_predicted = np.empty_like(arrays[0])

        def part(_: int, cells: slice) -> None:
            kernels.error_gradient(*(array[cells] for array in arrays), bound, *factors, d_predicted[cells])

        for_each(pieces(len(d_predicted), CELLS_PER_PART), part)
        return torch.from_numpy(d_predicted), None, None, None, None, None


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy(force=True) for tensor in tensors]
