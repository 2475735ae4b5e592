"""One pass of an optimiser's rule over a matrix and its moments, whole or by blocks.

On a CPU a compiled kernel makes it, on several threads; elsewhere plain PyTorch does. The update is element by element,
so its bits depend on neither the number of threads nor the pieces.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.autograd.graph import increment_version

from grndist.optim.blocks import PART, Block, entries, put_entries
from grndist.optim.kernels import is_compiled
from grndist.parallel import for_each, pieces

TILE = 2**24  # entries for which PyTorch makes temporary copies at a time


class Rule(NamedTuple):
    """An optimiser's arithmetic, three times: its arguments are matrices, all in place, and then numbers."""

    whole: Callable[..., Any]  # a kernel of `optim.kernels`
    block: Callable[..., Any]
    plain: Callable[..., Any]  # the definition, in PyTorch


def over_whole(rule: Rule, tensors: list[Tensor], numbers: tuple[float, ...]) -> None:
    """Apply a rule to a parameter, its gradient and its moments, all of one shape."""
    if not is_compiled(*tensors):
        rows = max(1, TILE // max(1, tensors[0][0].numel()))
        for part in pieces(len(tensors[0]), rows):
            rule.plain(*(tensor[part] for tensor in tensors), *numbers)
        return
    flat = [tensor.detach().view(-1).numpy() for tensor in tensors]
    given = as_type_of(flat[0], numbers)
    for_each(pieces(len(flat[0]), PART), lambda _, part: rule.whole(*(array[part] for array in flat), *given))
    increment_version(tensors[0])


def over_block(rule: Rule, block: Block, matrices: list[Tensor], numbers: tuple[float, ...]) -> None:
    """Apply a rule to the entries of a block of a parameter and its moments; the others stay as they are."""
    assert block.values.grad is not None
    gradient = block.values.grad.contiguous()
    if not is_compiled(gradient, *matrices):
        copies = [entries(matrix, block.rows, block.columns) for matrix in matrices]
        rule.plain(copies[0], gradient, *copies[1:], *numbers)
        for matrix, copy in zip(matrices, copies, strict=True):
            put_entries(matrix, block.rows, block.columns, copy)
        return
    slope, *arrays = (tensor.detach().numpy() for tensor in (gradient, *matrices))
    rows, columns = (
        np.arange(n) if index is None else index.numpy()
        for n, index in zip(slope.shape, (block.rows, block.columns), strict=True)
    )
    given = as_type_of(slope, numbers)
    parts = pieces(len(rows), max(1, PART // max(1, len(columns))))
    for_each(parts, lambda _, part: rule.block(rows[part], slope[part], columns, *arrays, *given))
    increment_version(matrices[0])


def as_type_of(array: np.ndarray, numbers: tuple[float, ...]) -> list[np.generic]:
    """The numbers in the precision of an array: a kernel is then compiled once for it."""
    return [array.dtype.type(number) for number in numbers]
