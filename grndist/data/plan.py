"""Which cells and genes each step sees: arithmetic only, no files and no torch.

A plan is a pure function of (seed, epoch, step). Resuming is asking for a later step. The cells of a
step come from `streams` logical streams, dealt round robin to any number of workers, so the global batch
does not depend on how many there are.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from grndist.genes import UNMAPPED
from grndist.seeds import stream

Cells = Int64[np.ndarray, " cells"]


@runtime_checkable
class Plan(Protocol):
    """What the loader asks of a plan."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one epoch."""

    def share(self, epoch: int, step: int, logical: int) -> Cells:
        """Store rows that logical stream `logical` brings to step `step` of `epoch`."""

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
    """The store rows that worker `rank` of `world` reads for a step."""
    shares = [plan.share(epoch, step, logical) for logical in streams_of(rank, world, plan.streams)]
    return np.concatenate(shares) if shares else np.empty(0, dtype=np.int64)


def gene_subset(seed: int, epoch: int, step: int, n_genes: int, genes_per_step: int) -> Int64[np.ndarray, " genes"]:
    """`genes_per_step` of the panel's columns, ascending, no repeats; all of them if the panel is no larger."""
    if genes_per_step >= n_genes:
        return np.arange(n_genes)
    return np.sort(stream(seed, "genes", epoch, step).choice(n_genes, size=genes_per_step, replace=False))


@dataclass(frozen=True)
class ShuffledPlan:
    """Every cell once an epoch: blocks in random order are dealt to streams, cells shuffled within windows of blocks.

    The store's cells are in random order already, so a window (a few blocks) is a random sample of all cells.
    An epoch has ceil(n_cells / cells_per_step) steps of nearly equal size; none is short and no cell is dropped.
    """

    n_cells: int
    n_genes: int
    cells_per_step: int  # over all workers together
    genes_per_step: int
    seed: int
    streams: int = 1
    cells_per_block: int = 1024
    blocks_per_window: int = 8

    @cached_property
    def steps_per_epoch(self) -> int:
        """ceil(n_cells / cells_per_step)."""
        return math.ceil(self.n_cells / self.cells_per_step)

    def share(self, epoch: int, step: int, logical: int) -> Cells:
        """An equal part (one step's) of the stream's cells of this epoch."""
        order = _shuffled_orders(self, epoch)[logical]
        return order[len(order) * step // self.steps_per_epoch : len(order) * (step + 1) // self.steps_per_epoch]

    def genes(self, epoch: int, step: int) -> Int64[np.ndarray, " genes"]:
        """See `gene_subset`."""
        return gene_subset(self.seed, epoch, step, self.n_genes, self.genes_per_step)


@lru_cache(maxsize=2)  # an order takes 8 bytes a cell
def _shuffled_orders(plan: ShuffledPlan, epoch: int) -> tuple[Cells, ...]:
    """All cells of one epoch, by logical stream: each stream's windows in turn, each permuted."""
    n_blocks = math.ceil(plan.n_cells / plan.cells_per_block)
    blocks = stream(plan.seed, "blocks", epoch).permutation(n_blocks)
    starts = range(0, n_blocks, plan.blocks_per_window)
    windows = [
        stream(plan.seed, "cells", epoch, number).permutation(
            _rows(plan, blocks[start : start + plan.blocks_per_window])
        )
        for number, start in enumerate(starts)
    ]
    nothing = np.empty(0, dtype=np.int64)
    return tuple(np.concatenate([nothing, *windows[logical :: plan.streams]]) for logical in range(plan.streams))


def _rows(plan: ShuffledPlan, blocks: Int64[np.ndarray, " blocks"]) -> Cells:
    size = plan.cells_per_block
    return np.concatenate([np.arange(block * size, min((block + 1) * size, plan.n_cells)) for block in blocks])


@dataclass(frozen=True, eq=False)
class BalancedPlan:
    """Equal numbers of cells per perturbation, as pytorch-metric-learning's MPerClassSampler deals them.

    Passes over all labels in random order, `cells_per_label` cells of each (drawn with replacement only where a
    label has fewer), cut into batches; an epoch is about `cells_per_epoch` cells. Control cells and cells whose label
    is no gene of the panel are ONE label, as in CaTran's released challenge code.
    """

    perturbed: Cells  # perturbed column of every cell of the store
    n_genes: int
    cells_per_step: int
    genes_per_step: int
    seed: int
    streams: int = 1
    cells_per_label: int = 25
    cells_per_epoch: int = 100_000

    @cached_property
    def steps_per_epoch(self) -> int:
        """Full batches in one epoch, at least one."""
        return max(self._passes * self.cells_per_label * len(self._members) // self.cells_per_step, 1)

    def share(self, epoch: int, step: int, logical: int) -> Cells:
        """A contiguous part of the batch."""
        batch = self._order(epoch)[step * self.cells_per_step : (step + 1) * self.cells_per_step]
        return batch[len(batch) * logical // self.streams : len(batch) * (logical + 1) // self.streams]

    def genes(self, epoch: int, step: int) -> Int64[np.ndarray, " genes"]:
        """See `gene_subset`."""
        return gene_subset(self.seed, epoch, step, self.n_genes, self.genes_per_step)

    @cached_property
    def _passes(self) -> int:
        return max(self.cells_per_epoch // (self.cells_per_label * len(self._members)), 1)

    @cached_property
    def _members(self) -> list[Cells]:
        labels = np.where(self.perturbed == UNMAPPED, -1, self.perturbed)
        return [np.flatnonzero(labels == label) for label in np.unique(labels)]

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
