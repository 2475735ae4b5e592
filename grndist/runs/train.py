"""Training in this process."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from grndist import models
from grndist.data.selection import select
from grndist.data.store import open_store
from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.view import View
from grndist.progress import bar
from grndist.runs import augmentation
from grndist.runs.config import RunConfig, TrainingConfig
from grndist.runs.folder import metrics_file, prepare, tracking
from grndist.runs.learning import Learning, learning, resolved, schedule_of, steps_of
from grndist.runs.mirror import mirrored
from grndist.runs.refusals import refuse_unfit
from grndist.runs.stopping import Interrupted, collected, stopped_at_once
from grndist.runs.validation import divided
from grndist.runs.workplace import Workplace, locked
from grndist.storage import StorageError, is_remote, joined
from grndist.tracking import Tracker
from grndist.training import checkpoint
from grndist.training.loop import State, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """What a finished run says at the end."""

    folder: str  # the run directory, a path or URL
    checkpoint: str
    steps: int
    seconds: float
    cells_per_second: float
    losses: dict[str, float]
    stopped_early: str = ""  # why, where it was before the last step
    augmentation: str = ""  # the rate and why, where pilots have chosen it
    tracking: list[str] = field(default_factory=list)


def train_run(config: RunConfig, resume: bool = False, overwrite: bool = False) -> RunSummary:
    """Train one model in this process and leave its last checkpoint in the run directory.

    Raises:
        UserError: the store, the run directory or the settings do not allow it.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint of that step is left, if it was not before the first one.
    """
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    store = open_store(config.store)
    view, held_out = divided(select(store, config), config.training.validation, config.training.seed)
    refuse_unfit(config, view)
    config = resolved(config, view)
    run = joined(config.runs, config.name)
    with mirrored(run, resume, overwrite) if is_remote(run) else locked(Path(run), resume, overwrite) as place:
        config = augmentation.as_begun(place.folder, config) if resume else config
        start = prepare(place.folder, config, view, resume)
        place.deliver()
        logger.info("%s", "\n".join([f"store: {store.summary()}", *view.lines]))
        config = _settled(place, config, view, overwrite)
        started = time.monotonic()
        learns = _prepared(config, view, held_out, start, overwrite)
        with tracking(place.folder, config, view) as tracker:
            summary = _train(place, config, view, learns, tracker, started) if learns else None
            final = checkpoint.latest(place.folder / "checkpoints")
            tracker.log_model({name: final / name for name in checkpoint.NETWORK_FILES})
        summary = summary or _finished(place, config, view, final)
        return replace(summary, augmentation=augmentation.reason(place.folder), tracking=tracker.where())


@dataclass
class _UnderWay:
    """A run while it trains: after every step it shows and logs numbers, saves, and stops if it was asked to."""

    place: Workplace
    config: RunConfig
    view: View
    learns: Learning
    logs: tuple[Callable[[int, dict[str, float]], None], ...]
    show: Callable[[float, float], None]  # loss, cells per second
    stopped: list[int]  # signals that asked it to stop
    started: float  # when its preparation began
    cells: int  # seen by now
    precision: Callable[[], AbstractContextManager[Any]]
    losses: dict[str, float] = field(default_factory=dict)  # of the last step

    def after_step(self, state: State, batch: Batch | MomentsBatch, losses: dict[str, float]) -> bool:
        """What `training.loop.train` calls; whether held-out cells say that it is enough.

        Raises:
            Interrupted: a signal has come; a checkpoint of this step is left.
        """
        training, ends = self.config.training, state.step == self.learns.steps
        self.cells += batch.n_cells if isinstance(batch, Batch) else 0
        validation = self.learns.validation
        validated = validation.look(state, self.precision) if validation else {}
        self.losses.update(losses | validated)
        rate = self.rate
        self.show(losses["loss"], rate)
        if state.step % training.log_every == 0 or ends or validated:
            for log in self.logs:
                log(state.step, losses | validated | {"epoch": batch.epoch, "cells_per_second": rate})
        if self.stopped:
            raise Interrupted(
                f"stopped at step {state.step} of {self.learns.steps}; {self.save(state)} is saved; "
                "go on with the same command and --resume",
                self.stopped[0],
            )
        if validation and validation.schedule.is_over(state.looks):
            return True
        if state.step % training.checkpoint_every == 0 and not ends:
            self.save(state)
        return False

    @property
    def rate(self) -> float:
        """Cells per second since its preparation began; cells whose moments were summed count once."""
        return self.cells / max(time.monotonic() - self.started, 1e-9)

    def save(self, state: State) -> Path:
        """Leave a checkpoint in the run directory."""
        about = checkpoint.Description(
            state.step, self.config.model_dump(mode="json"), list(self.view.panel.names), self.view.store.digest,
            self.learns.regulators, list(self.learns.unmeasured), state.looks,
        )  # fmt: skip
        path = checkpoint.save(self.place.folder / "checkpoints", state, about)
        try:
            self.place.deliver()
        except StorageError as error:  # what is missing there will come with the next one; the last one must
            logger.warning("%s; %s has not arrived there yet, and the run goes on", error, path.name)
        return path


def _settled(place: Workplace, config: RunConfig, view: View, overwrite: bool) -> RunConfig:
    """The settings without an "auto", after pilots where those are to choose.

    Raises:
        Interrupted: a signal has come before they were done.
    """
    if not models.pilot_epochs(config.model):
        return config
    with stopped_at_once(f"stopped among the pilots of model.augmentation=auto; they start anew: {_again(overwrite)}"):
        config = augmentation.settled(place.folder, config, view, _precision(config.training))
    place.deliver()
    return config


def _prepared(
    config: RunConfig, view: View, held_out: View | None, start: Path | None, overwrite: bool
) -> Learning | None:
    """What is to be learnt from checkpoint `start` on, with a line in the log; None after the last step.

    Raises:
        Interrupted: a signal has come before it was ready.
    """
    step = 0 if start is None else checkpoint.describe(start).step
    early = "" if start is None else _stopped_early(config, view, start)
    if early or (start is not None and step >= steps_of(config, view)):
        logger.info("training: %s", early or f"all {step} steps are done")
        return None
    message = f"stopped in its preparation, before step {step + 1}: there is nothing to save; {_again(overwrite)}"
    with stopped_at_once(message):
        learns = learning(config, view, held_out)
        if start is not None:
            checkpoint.restore(start, learns.state)
    logger.info("training: %s", "\n".join(learns.lines))
    return learns


def _again(overwrite: bool) -> str:
    return "the same command starts it again" if overwrite else "go on with the same command and --resume"


def _train(
    place: Workplace, config: RunConfig, view: View, learns: Learning, tracker: Tracker, started: float
) -> RunSummary:
    state, steps, precision = learns.state, learns.steps, _precision(config.training)
    with collected() as stopped, metrics_file(place.folder, state.step) as write, _bar(state.step, steps) as show:
        logs = (write, tracker.log_metrics)
        under_way = _UnderWay(place, config, view, learns, logs, show, stopped, started, learns.n_cells, precision)
        train(state, learns.batch_at, steps, under_way.after_step, precision)
        final = under_way.save(state)
    early, seconds = _stopped_early(config, view, final), time.monotonic() - started
    if early:
        logger.info("training: %s", early)
    there = joined(place.run, "checkpoints", final.name)
    return RunSummary(place.run, there, state.step, seconds, under_way.cells / seconds, under_way.losses, early)


def _finished(place: Workplace, config: RunConfig, view: View, final: Path) -> RunSummary:
    """Of a run that had no step left."""
    there, step = joined(place.run, "checkpoints", final.name), checkpoint.describe(final).step
    early = _stopped_early(config, view, final)
    return RunSummary(place.run, there, step, seconds=0.0, cells_per_second=0.0, losses={}, stopped_early=early)


def _stopped_early(config: RunConfig, view: View, path: Path) -> str:
    """Why a checkpoint before the last step is the final one, in words; empty where it is not."""
    schedule = schedule_of(config, view)
    return schedule.verdict(checkpoint.describe(path).looks) if schedule else ""


def _precision(training: TrainingConfig) -> Callable[[], AbstractContextManager[Any]]:
    """Inside what a forward pass runs; sets how float32 products are computed."""
    torch.set_float32_matmul_precision("high" if training.precision == "tf32" else "highest")
    if training.precision == "bf16":
        return partial(torch.autocast, "cuda", torch.bfloat16)
    return nullcontext


@contextmanager
def _bar(first: int, steps: int) -> Iterator[Callable[[float, float], None]]:
    with bar("loss {task.fields[loss]:.4f}", "{task.fields[rate]:,.0f} cells/s") as progress:
        task = progress.add_task("train", total=steps, completed=first, loss=math.nan, rate=0.0)
        yield lambda loss, rate: progress.update(task, advance=1, loss=loss, rate=rate)
