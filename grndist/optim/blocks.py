"""A matrix of which a step may use a block: what autograd and the optimiser then touch is the block alone."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from grndist.optim.kernels import gather, is_compiled
from grndist.parallel import for_each, pieces

PART = 2**18  # entries that a thread works on at a time


class Block(NamedTuple):
    """The entries rows x columns of a matrix, each row and column once; None: all of them."""

    rows: Int64[Tensor, " regulators"] | None
    columns: Int64[Tensor, " targets"] | None
    values: Float[Tensor, "regulators targets"]  # a copy, and a leaf: its gradient is the block's


class BlockParameter(nn.Parameter):
    """A parameter [regulators, targets] that can be taken by blocks; in every other respect an `nn.Parameter`."""

    block: Block | None = None  # the one that was taken last, if it was not the whole

    def take(  # type: ignore[override]  # in place of PyTorch's, which takes from the flattened tensor
        self, rows: Int64[Tensor, " regulators"] | None, columns: Int64[Tensor, " targets"] | None
    ) -> Float[Tensor, "regulators targets"]:
        """The entries rows x columns: the parameter itself if both are None, otherwise a copy.

        The copy requires a gradient if the parameter does. The optimiser then updates the entries of the block from
        the copy's gradient; where no gradients are recorded the copy is for looking only.
        """
        if rows is None and columns is None:
            self.block = None
            return self
        values = entries(self.detach(), rows, columns)
        if torch.is_grad_enabled():
            values.requires_grad_(self.requires_grad)
            self.block = Block(rows, columns, values)
        return values

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """For pickle, which would make PyTorch's own class of it; the block is not kept."""
        return BlockParameter, (self.data, self.requires_grad)


def taken_block(parameter: nn.Parameter) -> Block | None:
    """The block that this step's gradient is of, None where the whole parameter was used."""
    block = parameter.block if isinstance(parameter, BlockParameter) else None
    return block if block is not None and block.values.grad is not None else None


def entries(
    matrix: Float[Tensor, "rows columns"], rows: Int64[Tensor, " regulators"] | None, columns: Tensor | None
) -> Float[Tensor, "regulators targets"]:
    """A copy of rows x columns, in one pass: no other matrix is made on the way."""
    if rows is None:
        return matrix.clone() if columns is None else matrix.index_select(1, columns)
    if columns is None:
        return matrix.index_select(0, rows)
    return _gathered(matrix, rows, columns) if is_compiled(matrix) else matrix[rows[:, None], columns]


def put_entries(
    matrix: Float[Tensor, "rows columns"],
    rows: Int64[Tensor, " regulators"] | None,
    columns: Int64[Tensor, " targets"] | None,
    values: Float[Tensor, "regulators targets"],
) -> None:
    """Inverse of `entries`."""
    at = slice(None) if rows is None else rows if columns is None else rows[:, None]
    matrix[at, slice(None) if columns is None else columns] = values


def _gathered(matrix: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "regulators targets"]:
    """As `matrix[rows[:, None], columns]`, in a third of the time."""
    found = matrix.new_empty(len(rows), len(columns))
    at, values, places, out = rows.numpy(), matrix.numpy(), columns.numpy(), found.numpy()
    parts = pieces(len(at), max(1, PART // max(1, len(places))))
    for_each(parts, lambda _, part: gather(at[part], values, places, out[part]))
    return found
