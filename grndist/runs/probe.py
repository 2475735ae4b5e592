"""A few steps of a run, to tell how long it will take and how much memory. Nothing of it is kept."""

import resource
import statistics
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import torch

from grndist import models
from grndist.data.moments import InOrder, Sums, check, part, shift_of
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import Perturbations
from grndist.data.view import View
from grndist.runs.augmentation import HELD_OUT, RATES, SEEDS
from grndist.runs.config import RunConfig
from grndist.runs.learning import Rank, learning, resolved, steps_of, steps_per_epoch
from grndist.runs.refusals import refuse_unfit, sizes_of_step
from grndist.runs.steps import precision_of
from grndist.runs.train import cells_of
from grndist.training.loop import State, train

BLOCKS = 2  # of cells whose moments are summed
RATE = 0.1  # of augmentation, where pilots are still to choose one; it does not matter to time or memory


@dataclass(frozen=True)
class Probe:
    """What a run costs one of its workers, who has not waited for the others."""

    workers: int  # of whom this is the first
    n_cells: int  # to train on
    n_genes: int
    steps: int  # of the whole run, one for a model that is solved
    steps_per_epoch: int  # 0 where the steps see moments of all cells
    pilot_steps: int  # of all pilots, each in one process and over all cells of a step
    seconds_to_prepare: float  # until the first step is over; of moments, the pass over the cells
    seconds_per_step: float  # of this worker's share; 0 where no step was taken
    peak_memory: int  # bytes that this process has held at most
    device_memory: int  # bytes, the same of a GPU
    known_memory: int  # bytes of a step, or of moments, that follow from the settings; 0 where none are known

    @property
    def pilot_seconds(self) -> float:
        """Of all pilots, which are one process's."""
        return self.pilot_steps * self.seconds_per_step * self.workers

    @property
    def seconds(self) -> float:
        """Of the whole run with its pilots, without looks at held-out cells."""
        return self.pilot_seconds + self.seconds_to_prepare + self.steps * self.seconds_per_step


def probe(config: RunConfig, workers: int = 1, steps: int = 5) -> Probe:
    """What the first of so many workers would need, from a few real steps, or from a part of the pass over the cells.

    The run directory is not touched. Moments are summed over a few blocks of cells only, and no steps follow.

    Raises:
        UserError: the store or the settings do not allow the run.
    """
    if threads := _threads(config):
        torch.set_num_threads(threads)
    view, _ = cells_of(config)
    refuse_unfit(config, view, is_here=True)
    config = resolved(config, view)
    if config.training.source == "moments":
        return _of_moments(config, view)
    length, per_epoch, pilots = steps_of(config, view), steps_per_epoch(config, view), models.pilot_epochs(config.model)
    if pilots:
        config = config.model_copy(update={"model": models.with_augmentation(config.model, RATE)})
    pilot_steps = len(RATES) * SEEDS * (1 - HELD_OUT) * min(length, pilots * per_epoch)
    first, others = _timed(config, view, workers, steps)
    known = models.bytes_of_step(config.model, config.training, sizes_of_step(config.training, view))
    return Probe(
        workers, view.n_cells, view.n_genes, length, per_epoch, round(pilot_steps), first, others, _peak(),
        _device_peak(config), known.total if known else 0,
    )  # fmt: skip


def _threads(config: RunConfig) -> int:
    """Of the process that trains; 0: as many as PyTorch takes."""
    return config.training.threads or (max(int(config.workers.cpus_per_worker), 1) if config.workers else 0)


def _timed(config: RunConfig, view: View, workers: int, steps: int) -> tuple[float, float]:
    """Seconds until the first step is over, and of each one after it (the median)."""
    begun = time.perf_counter()
    learns = learning(config, view, rank=Rank(0, workers))
    ends: list[float] = []

    def look(state: State, *_: object) -> None:
        ends.append(time.perf_counter())

    train(learns.state, learns.batch_at, min(steps + 1, learns.steps), look, precision_of(config.training))
    each = [after - before for before, after in pairwise(ends)]
    return ends[0] - begun, statistics.median(each or [ends[0] - begun])


class _EnoughError(Exception):
    """The pass over the cells has gone on for long enough."""

    def __init__(self, seconds: float):
        super().__init__(seconds)
        self.seconds = seconds  # that the whole pass would take


def _of_moments(config: RunConfig, view: View) -> Probe:
    try:
        learning(config, view, pass_over=_a_part)
    except _EnoughError as enough:
        return Probe(
            1, view.n_cells, view.n_genes, steps_of(config, view), 0, 0, enough.seconds, 0.0, _peak(),
            _device_peak(config), models.bytes_of_moments(config.model, view),
        )  # fmt: skip
    raise AssertionError("a run that learns from moments makes no pass over the cells")


def _a_part(view: View, expression: ExpressionConfig, perturbations: Perturbations, products: bool) -> Sums:
    """In place of the pass over all cells: a part of it, after which nothing can be built."""
    check(expression)
    n_blocks, shift = InOrder(view.n_cells, view.n_genes).n_blocks, shift_of(view, expression)
    blocks = range(min(BLOCKS, n_blocks))
    begun = time.perf_counter()
    part(view, expression, perturbations, blocks, shift, products)
    raise _EnoughError((time.perf_counter() - begun) * n_blocks / len(blocks))


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_peak(config: RunConfig) -> int:
    return torch.cuda.max_memory_allocated() if config.training.device == "cuda" else 0
