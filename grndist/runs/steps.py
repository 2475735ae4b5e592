"""The steps of a run, in this process or in one of several workers: numbers, checkpoints, when to stop.

Of several workers the first one alone has the run directory; all of them decide the same at the same step.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.view import View
from grndist.runs.config import RunConfig, TrainingConfig
from grndist.runs.learning import Learning
from grndist.runs.workplace import Workplace
from grndist.storage import StorageError
from grndist.training import checkpoint
from grndist.training.loop import State, train
from grndist.workers import Workers

logger = logging.getLogger(__name__)

STEPS_BETWEEN_QUESTIONS = 16  # whether somebody wants to stop

Log = Callable[[int, dict[str, float]], None]  # a step and its numbers


@dataclass(frozen=True)
class News:
    """What is known after a step."""

    step: int
    loss: float
    cells_per_second: float  # over all workers, since the preparation began
    who: str = ""  # the workers, in words


class Keeper:
    """Leaves checkpoints in the run directory and brings them to where it belongs, in the background."""

    def __init__(self, place: Workplace, config: RunConfig, view: View, learns: Learning):
        self.place, self.config, self.view, self.learns = place, config, view, learns
        self._background = ThreadPoolExecutor(1, "deliver")
        self._under_way: Future[None] | None = None

    def save(self, state: State) -> Path:
        """Leave a checkpoint; the one before is delivered by then."""
        self.delivered()
        about = checkpoint.Description(
            state.step, self.config.model_dump(mode="json"), list(self.view.panel.names), self.view.store.digest,
            self.learns.regulators, list(self.learns.unmeasured), state.looks,
        )  # fmt: skip
        path = checkpoint.save(self.place.folder / "checkpoints", state, about)
        self._under_way = self._background.submit(self._deliver, path.name)
        return path

    def delivered(self) -> None:
        """Wait until nothing is under way.

        Raises:
            UserError: of the delivery, except where the place did not answer: that the next one makes good.
        """
        if self._under_way is not None:
            future, self._under_way = self._under_way, None
            future.result()

    def _deliver(self, name: str) -> None:
        try:
            self.place.deliver()
        except StorageError as error:  # what is missing there will come with the next one; the last one must
            logger.warning("%s; %s has not arrived there yet, and the run goes on", error, name)


@contextmanager
def keeping(place: Workplace, config: RunConfig, view: View, learns: Learning) -> Iterator[Keeper]:
    """A keeper; when the block ends, everything is delivered."""
    keeper = Keeper(place, config, view, learns)
    try:
        yield keeper
        keeper.delivered()
    finally:
        keeper._background.shutdown()


@dataclass
class Stepping:
    """A run while it trains, as one of its workers sees it."""

    config: RunConfig
    learns: Learning
    workers: Workers
    save: Callable[[State], Any]
    logs: tuple[Log, ...]
    show: Callable[[News], None]
    wants_stop: Callable[[], bool]  # asked of this worker; all stop where one wants to
    started: float  # when the preparation began
    losses: dict[str, float] = field(default_factory=dict)  # of the last step
    cells: float = 0.0  # seen by now, by all workers
    stopped: bool = False  # before the end, because somebody wanted to

    def __post_init__(self) -> None:
        self.precision = precision_of(self.config.training)
        self.cells = float(self.learns.n_cells)

    def go(self, until: int | None = None) -> None:
        """Take all steps that are left, or those up to step `until`, and save the last."""
        state, steps = self.learns.state, self.learns.steps if until is None else until
        train(state, self.learns.batch_at, steps, self.after_step, self.precision, self.workers)
        self.save(state)

    @property
    def rate(self) -> float:
        """Cells per second since the preparation began; cells whose moments were summed count once."""
        return self.cells / max(time.monotonic() - self.started, 1e-9)

    def after_step(self, state: State, batch: Batch | MomentsBatch, losses: dict[str, float]) -> bool:
        """What `training.loop.train` calls; whether this was the last step."""
        training, ends = self.config.training, state.step == self.learns.steps
        self.cells += self.learns.cells_per_step
        validation = self.learns.validation
        validated = validation.look(state, self.precision, self.workers) if validation else {}
        self.losses.update(losses | validated)
        self.show(News(state.step, losses["loss"], self.rate))
        if state.step % training.log_every == 0 or ends or validated:
            numbers = losses | validated | {"epoch": batch.epoch, "cells_per_second": self.rate}
            for log in self.logs:
                log(state.step, numbers)
        if self._is_stopped(state.step) or (validation and validation.schedule.is_over(state.looks)):
            return True
        if state.step % training.checkpoint_every == 0 and not ends:
            self.save(state)
        return False

    def _is_stopped(self, step: int) -> bool:
        """Whether anybody wants to stop; of several workers, who have to tell each other, now and then."""
        if self.workers.count == 1:
            self.stopped = self.wants_stop()
        elif step % STEPS_BETWEEN_QUESTIONS == 0:
            mine = torch.tensor([float(self.wants_stop())], device=self.config.training.device)
            self.stopped = bool(self.workers.total(mine)[0] > 0)
        return self.stopped


def precision_of(training: TrainingConfig) -> Callable[[], AbstractContextManager[Any]]:
    """Inside what a forward pass runs; sets how float32 products are computed."""
    torch.set_float32_matmul_precision("high" if training.precision == "tf32" else "highest")
    if training.precision == "bf16":
        return partial(torch.autocast, "cuda", torch.bfloat16)
    return nullcontext
