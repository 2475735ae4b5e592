"""The one pass over the cells of a view: in pieces, each decoded and made dense while the one before it is multiplied.

Products of float32 pieces are summed in float32 over a block of cells and then added to float64. Blocks depend on the
number of genes alone, so any division of the cells into parts gives the same sums to rounding in float64.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Literal

import dask
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from threadpoolctl import threadpool_limits

from grndist.data.moments import kernels
from grndist.data.moments.products import OFTEN, Products
from grndist.data.moments.sums import Sums, nothing
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import Perturbations
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import Piece
from grndist.data.view import View
from grndist.errors import UserError
from grndist.progress import track

Precision = Literal["float32", "float64"]  # of the products; sums are float64
Steps = Callable[[Sequence[int]], Iterable[int]]

CELLS_PER_PIECE = 2048
VALUES_PER_PIECE = 2**24  # 64 MiB of float32
PIECES_PER_BLOCK = 4


class MomentsError(UserError):
    """The moments of this expression cannot be had from sums."""


@dataclass(frozen=True)
class InOrder:
    """A loader's plan: all cells once, in order, with all genes; step i is piece i."""

    n_cells: int
    n_genes: int
    seed: int = 0  # nothing is drawn
    streams: int = 1

    @property
    def cells_per_piece(self) -> int:
        """Fewer for many genes."""
        return max(min(CELLS_PER_PIECE, VALUES_PER_PIECE // self.n_genes), 1)

    @property
    def steps_per_epoch(self) -> int:
        """Number of pieces."""
        return -(-self.n_cells // self.cells_per_piece)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.steps_per_epoch // PIECES_PER_BLOCK)

    def ends_block(self, step: int) -> bool:
        """Whether piece `step` is the last one of its block."""
        return (step + 1) % PIECES_PER_BLOCK == 0 or step + 1 == self.steps_per_epoch

    def share(self, epoch: int, step: int, logical: int) -> list[Piece]:
        """The one piece of a step."""
        return [Piece(step, self.window(epoch, logical, step))]

    def windows(self, epoch: int, logical: int) -> int:
        """As many as there are pieces."""
        return self.steps_per_epoch

    def window(self, epoch: int, logical: int, number: int) -> Int64[np.ndarray, " cells"]:
        """The cells of piece `number`."""
        first = number * self.cells_per_piece
        return np.arange(first, min(first + self.cells_per_piece, self.n_cells))

    def genes(self, epoch: int, step: int) -> Int64[np.ndarray, " genes"]:
        """All of them."""
        return np.arange(self.n_genes)


def sums(
    view: View,
    config: ExpressionConfig,
    perturbations: Perturbations,
    products: bool = True,
    precision: Precision = "float32",
    workers: int = 1,
    scheduler: str | Callable = "synchronous",
) -> Sums:
    """The sums over all cells of a view, which are the same to rounding in float64 for any number of workers.

    Args:
        view: its cells and genes.
        config: what expression is.
        perturbations: of the view's cells.
        products: sum Q^T Q, too, which takes 12 bytes for every two genes and most of the time.
        precision: of the products of one block of cells.
        workers: parts into which the cells are cut, each a Dask task with sums of its own; in one process that takes
            memory and saves no time, since a part keeps several threads busy as it is.
        scheduler: where Dask runs them, e.g. "threads" or a function such as Ray's.

    Raises:
        MomentsError: the expression is scaled by cell or standardised.
        StoreError: the store is damaged.
    """
    check(config)
    n_blocks = InOrder(view.n_cells, view.n_genes).n_blocks
    shift = shift_of(view, config)
    over = _tracked if workers == 1 else iter
    one = partial(part, view, config, perturbations, shift=shift, products=products, precision=precision, over=over)
    bounds = [n_blocks * worker // workers for worker in range(workers + 1)]
    parts = [dask.delayed(one, pure=False, traverse=False)(range(*ends)) for ends in pairwise(bounds)]
    with threadpool_limits(torch.get_num_threads(), "blas"):  # SciPy's does not know of torch's
        (found,) = dask.compute(reduce(dask.delayed(operator.add), parts), scheduler=scheduler)
    return found


def _tracked(steps: Sequence[int]) -> Iterable[int]:
    return track(steps, "moments", len(steps))


def check(config: ExpressionConfig) -> None:
    """Refuse expression whose moments do not follow from the sums.

    Raises:
        MomentsError: `cell_minmax` or `zscore` is on.
    """
    for name, value, plain in (("cell_minmax", config.cell_minmax, False), ("zscore", config.zscore, "none")):
        if value != plain:
            raise MomentsError(
                f"expression.{name} is {value!r}, but sums over all cells need values that are scaled neither by cell "
                f"nor by gene (they are standardised afterwards, for mini-batches too); set it to {plain!r}"
            )


def part(
    view: View,
    config: ExpressionConfig,
    perturbations: Perturbations,
    blocks: range,
    shift: Float64[np.ndarray, " genes"],
    products: bool = True,
    precision: Precision = "float32",
    over: Steps = iter,
) -> Sums:
    """The sums over some blocks of cells: what one worker does (see `sums`).

    Args:
        view: all cells.
        config: what expression is.
        perturbations: of all cells.
        blocks: consecutive numbers below `InOrder.n_blocks`.
        shift: the same for all workers, e.g. from `shift_of`; 0 for a gene whose zeros are to be skipped.
        products: sum Q^T Q, too.
        precision: of the products of one block.
        over: goes over the pieces, e.g. with a progress bar.
    """
    plan, dtype = InOrder(view.n_cells, view.n_genes), np.dtype(precision)
    loader = Loader(view, plan, config, ahead=False)
    found = nothing(shift, perturbations, products)
    product = None if found.product is None else Products(found.product, shift == 0, dtype)

    def prepared(step: int) -> Float[np.ndarray, "cells often"]:
        """Add a piece's sums but for the products of frequent genes, whose Q comes back."""
        q = loader.batch_at(step).expression.numpy().astype(dtype, copy=False)
        _gather(q, perturbations.label[plan.window(0, 0, step)], perturbations, found)
        return q if product is None else product.add_rare(q, plan.ends_block(step))

    steps = range(blocks.start * PIECES_PER_BLOCK, min(blocks.stop * PIECES_PER_BLOCK, plan.steps_per_epoch))
    for step, q in zip(over(steps), _ahead(prepared, steps), strict=True):
        if product is not None:
            product.add_frequent(q, plan.ends_block(step))
    if product is not None and found.product is not None:
        product.finish()
        np.fill_diagonal(found.product, found.square)  # summed in float64, unlike the products
    return found


def shift_of(view: View, config: ExpressionConfig) -> Float64[np.ndarray, " genes"]:
    """Each gene's mean over the first piece of cells, rounded to float32; 0 for genes that are rarely seen there."""
    first = Loader(view, InOrder(view.n_cells, view.n_genes), config, ahead=False).batch_at(0).expression.numpy()
    often = (first != 0).mean(axis=0) >= OFTEN
    return np.where(often, first.mean(axis=0, dtype=np.float64).astype(np.float32), 0).astype(np.float64)


def _gather(
    q: Float[np.ndarray, "cells genes"], label: Int64[np.ndarray, " cells"], perturbations: Perturbations, found: Sums
) -> None:
    """Make expression Q, in place, and add its sums to `found`, but for the products."""
    kernels.gather(
        q, found.shift.astype(q.dtype), label, perturbations.members, found.n, found.total, found.square,
        found.own_total, found.own_square,
    )  # fmt: skip


def _ahead(make: Callable[[int], np.ndarray], steps: range) -> Iterator[np.ndarray]:
    """What `make` gives for each step, in order; the next one is made in the background."""
    with ThreadPoolExecutor(1, "moments") as background:
        coming = [background.submit(make, step) for step in steps[:1]]
        for step in steps:
            ready = coming.pop().result()
            if step != steps[-1]:
                coming.append(background.submit(make, step + 1))
            yield ready
