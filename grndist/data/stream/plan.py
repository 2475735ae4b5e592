"""Which cells and genes each step sees: arithmetic only, no files and no torch.

A plan is a pure function of (seed, epoch, step). Resuming is asking for a later step. The cells of a
step come from `streams` logical streams, dealt round robin to any number of workers, so the global batch
does not depend on how many there are. A stream's cells come window by window: a window is what is read at once.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from grndist.genes import CONTROL, UNMAPPED
from grndist.seeds import stream

Cells = Int64[np.ndarray, " cells"]

CELLS_PER_BLOCK = 1024  # contiguous cells that are read and shuffled together
CELLS_PER_WINDOW = 8192
WINDOW_BYTES = 900 * 2**20  # of all windows that one process alone holds
WINDOWS_HELD = 3.3  # of a stream where one ends: it, the next, the one after that, and room to use their memory again
BLOCKS_PER_STREAM = 8  # at least, so that streams are of nearly equal length


class Piece(NamedTuple):
    """Cells of a step that come from one window of a stream."""

    window: int  # counted from 0 in each epoch and stream
    cells: Int64[np.ndarray, " _"]


@runtime_checkable
class Plan(Protocol):
    """What the loader asks of a plan."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one epoch."""

    def share(self, epoch: int, step: int, logical: int) -> list[Piece]:
        """Cells that logical stream `logical` brings to step `step` of `epoch`, window by window."""

    def windows(self, epoch: int, logical: int) -> int:
        """Number of windows of a stream."""

    def window(self, epoch: int, logical: int, number: int) -> Cells:
        """All cells of a window, ascending."""

    def genes(self, epoch: int, step: int) -> Int64[np.ndarray, " genes"]:
        """The gene subset of the step, ascending; the same on every worker."""

    @property
    def seed(self) -> int:
        """The seed everything is drawn from."""

    @property
    def streams(self) -> int:
        """Number of logical streams."""


def streams_of(rank: int, world: int, streams: int) -> range:
    """The logical streams that worker `rank` of `world` serves; together the workers serve each once."""
    return range(rank, streams, world)


def cells(plan: Plan, epoch: int, step: int, rank: int = 0, world: int = 1) -> Cells:
    """The cells that worker `rank` of `world` reads for a step."""
    shares = [plan.share(epoch, step, logical) for logical in streams_of(rank, world, plan.streams)]
    return _joined([piece.cells for share in shares for piece in share])


def gene_subset(seed: int, epoch: int, step: int, n_genes: int, genes_per_step: int) -> Int64[np.ndarray, " genes"]:
    """`genes_per_step` of the panel's columns, ascending, no repeats; all of them if the panel is no larger."""
    if genes_per_step >= n_genes:
        return np.arange(n_genes)
    return np.sort(stream(seed, "genes", epoch, step).choice(n_genes, size=genes_per_step, replace=False))


def cells_per_window(streams: int, bytes_per_cell: float) -> int:
    """At most CELLS_PER_WINDOW, fewer where the windows that all streams hold at once would not fit WINDOW_BYTES."""
    return max(min(CELLS_PER_WINDOW, int(WINDOW_BYTES / (WINDOWS_HELD * streams * max(bytes_per_cell, 1)))), 1)


def _joined(parts: list[Int64[np.ndarray, " _"]]) -> Cells:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


@dataclass(frozen=True)
class ShuffledPlan:
    """Every cell once an epoch: blocks in random order are dealt to streams, cells shuffled within windows of blocks.

    The store's cells are in random order already, so a window (a few blocks) is a random sample of all cells. Every
    stream has the same number of windows, whose sizes differ by at most a block; which blocks come last changes with
    every epoch. An epoch has ceil(n_cells / cells_per_step) steps of nearly equal size: none is short, and no cell is
    dropped.
    """

    n_cells: int
    n_genes: int
    cells_per_step: int  # over all workers together
    genes_per_step: int
    seed: int
    streams: int = 1
    cells_per_block: int = CELLS_PER_BLOCK
    cells_per_window: int = CELLS_PER_WINDOW

    @cached_property
    def steps_per_epoch(self) -> int:
        """ceil(n_cells / cells_per_step)."""
        return math.ceil(self.n_cells / self.cells_per_step)

    @property
    def cells_per_step_in_the_mean(self) -> float:
        """Of all workers."""
        return self.n_cells / self.steps_per_epoch

    def share(self, epoch: int, step: int, logical: int) -> list[Piece]:
        """An equal part (one step's) of the stream's cells of this epoch."""
        bounds = _bounds(self, epoch, logical)
        phase = logical * self.steps_per_epoch // self.streams  # else all streams would round down at the same steps
        first, last = ((int(bounds[-1]) * at + phase) // self.steps_per_epoch for at in (step, step + 1))
        pieces = []
        begin, end = np.searchsorted(bounds, first, side="right") - 1, np.searchsorted(bounds, last)
        for number in range(begin, end):
            inside = slice(max(first - bounds[number], 0), max(last - bounds[number], 0))
            cells = _shuffled_window(self, epoch, logical, number)[inside]
            pieces += [Piece(number, cells)] if len(cells) else []
        return pieces

    def windows(self, epoch: int, logical: int) -> int:
        """The same for every epoch and stream."""
        return self._windows_per_stream

    def window(self, epoch: int, logical: int, number: int) -> Cells:
        """See `Plan`."""
        return np.sort(_shuffled_window(self, epoch, logical, number))

    def genes(self, epoch: int, step: int) -> Int64[np.ndarray, " genes"]:
        """See `gene_subset`."""
        return gene_subset(self.seed, epoch, step, self.n_genes, self.genes_per_step)

    @cached_property
    def _windows_per_stream(self) -> int:
        return math.ceil(self._n_blocks / (self.streams * (self.cells_per_window // self._block)))

    @cached_property
    def _n_blocks(self) -> int:
        return math.ceil(self.n_cells / self._block)

    @cached_property
    def _block(self) -> int:
        """Cells of a block."""
        finest = self.n_cells if self.streams == 1 else max(self.n_cells // (self.streams * BLOCKS_PER_STREAM), 1)
        return min(self.cells_per_block, self.cells_per_window, finest)


@lru_cache(maxsize=2)
def _blocks(plan: ShuffledPlan, epoch: int) -> list[Int64[np.ndarray, " blocks"]]:
    """The blocks of every window of all streams: window w of stream v is number w * streams + v."""
    n_windows = plan.streams * plan._windows_per_stream
    return np.array_split(stream(plan.seed, "blocks", epoch).permutation(plan._n_blocks), n_windows)


@lru_cache(maxsize=256)
def _bounds(plan: ShuffledPlan, epoch: int, logical: int) -> Int64[np.ndarray, " windows_plus_1"]:
    """Where each window of a stream begins among the stream's cells, and where the last one ends."""
    size = plan._block
    sizes = [np.minimum(size, plan.n_cells - own * size).sum() for own in _blocks(plan, epoch)[logical :: plan.streams]]
    return np.cumsum([0, *sizes], dtype=np.int64)


@lru_cache(maxsize=256)  # 64 KiB each
def _shuffled_window(plan: ShuffledPlan, epoch: int, logical: int, number: int) -> Cells:
    """The cells of a window in the order in which they are visited."""
    size, number = plan._block, number * plan.streams + logical
    rows = [np.arange(block * size, min((block + 1) * size, plan.n_cells)) for block in _blocks(plan, epoch)[number]]
    return stream(plan.seed, "cells", epoch, number).permutation(_joined(rows))


@dataclass(frozen=True, eq=False)
class BalancedPlan:
    """Equal numbers of cells per perturbation, as pytorch-metric-learning's MPerClassSampler deals them.

    Passes over all labels in random order, `cells_per_label` cells of each (drawn with replacement only where a
    label has fewer), cut into batches; an epoch is about `cells_per_epoch` cells. With `control_share` that part of
    every batch is control cells and cells of unmapped labels are left out; without it, control cells and unmapped
    cells are ONE label like any other, as in CaTran's released challenge code.
    """

    perturbed: Cells  # perturbed column of every cell
    n_genes: int
    cells_per_step: int
    genes_per_step: int
    seed: int
    streams: int = 1
    cells_per_label: int = 25
    cells_per_epoch: int = 100_000
    control_share: float | None = None
    cells_per_window: int = CELLS_PER_WINDOW

    @cached_property
    def steps_per_epoch(self) -> int:
        """Full batches in one epoch, at least one."""
        return max(self._passes * self.cells_per_label * len(self._members) // self._labelled_per_step, 1)

    def share(self, epoch: int, step: int, logical: int) -> list[Piece]:
        """A contiguous part of the batch."""
        return [Piece(step // self._steps_per_window, self._share(epoch, step, logical))]

    def windows(self, epoch: int, logical: int) -> int:
        """The same for every epoch and stream."""
        return math.ceil(self.steps_per_epoch / self._steps_per_window)

    def window(self, epoch: int, logical: int, number: int) -> Cells:
        """The cells of a few successive steps, each once."""
        first = number * self._steps_per_window
        steps = range(first, min(first + self._steps_per_window, self.steps_per_epoch))
        return np.unique(_joined([self._share(epoch, step, logical) for step in steps]))

    def genes(self, epoch: int, step: int) -> Int64[np.ndarray, " genes"]:
        """See `gene_subset`."""
        return gene_subset(self.seed, epoch, step, self.n_genes, self.genes_per_step)

    def _share(self, epoch: int, step: int, logical: int) -> Cells:
        batch = self._batch(epoch, step)
        return batch[len(batch) * logical // self.streams : len(batch) * (logical + 1) // self.streams]

    def _batch(self, epoch: int, step: int) -> Cells:
        size = self._labelled_per_step
        labelled = self._order(epoch)[step * size : (step + 1) * size]
        if self.control_share is None:
            return labelled
        rng = stream(self.seed, "controls", epoch, step)
        wanted = self.cells_per_step - size
        controls = rng.choice(self._controls, size=wanted, replace=len(self._controls) < wanted)
        return rng.permutation(np.concatenate([labelled, controls]))

    @property
    def cells_per_step_in_the_mean(self) -> float:
        """Of all workers."""
        return float(self.cells_per_step)

    @cached_property
    def _steps_per_window(self) -> int:
        return max(self.cells_per_window * self.streams // self.cells_per_step, 1)

    @cached_property
    def _labelled_per_step(self) -> int:
        return self.cells_per_step - round(self.cells_per_step * (self.control_share or 0))

    @cached_property
    def _passes(self) -> int:
        return max(self.cells_per_epoch // (self.cells_per_label * len(self._members)), 1)

    @cached_property
    def _controls(self) -> Cells:
        return np.flatnonzero(self.perturbed == CONTROL)

    @cached_property
    def _members(self) -> list[Cells]:
        labels = np.where(self.perturbed == UNMAPPED, CONTROL, self.perturbed)
        groups = np.unique(labels if self.control_share is None else labels[labels != CONTROL])
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], [groups, groups + 1])
        return [order[first:last] for first, last in bounds.T]

    @lru_cache(maxsize=2)  # noqa: B019 - one plan per run
    def _order(self, epoch: int) -> Cells:
        rng = stream(self.seed, "balanced", epoch)
        m = self.cells_per_label
        runs = [
            rng.choice(self._members[label], size=m, replace=len(self._members[label]) < m)
            for _ in range(self._passes)
            for label in rng.permutation(len(self._members))
        ]
        return np.concatenate(runs)
