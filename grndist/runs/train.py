"""Training in this process, and what training elsewhere has in common with it: how a run begins and ends."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import yaml

from grndist import models
from grndist.config import Tree
from grndist.data.facts import Pass, in_one_task
from grndist.data.selection import select
from grndist.data.store import open_store
from grndist.data.view import View
from grndist.progress import bar
from grndist.runs import augmentation
from grndist.runs.config import RunConfig
from grndist.runs.folder import metrics_file, prepare, tracking
from grndist.runs.learning import Learning, learning, resolved, schedule_of, steps_of
from grndist.runs.mirror import mirrored
from grndist.runs.outcome import logging_outcome
from grndist.runs.refusals import refuse_unfit
from grndist.runs.steps import News, Stepping, keeping, precision_of
from grndist.runs.stopping import Interrupted, collected, stopped_at_once
from grndist.runs.validation import divided
from grndist.runs.workplace import Workplace, locked
from grndist.storage import is_remote, joined, open_storage
from grndist.tracking import Tracker
from grndist.training import checkpoint
from grndist.workers import ALONE

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


@dataclass(frozen=True)
class Begun:
    """A run whose settings stand and whose directory is there."""

    place: Workplace
    config: RunConfig  # resolved
    view: View  # cells to train on
    held_out: View | None  # cells to validate with
    start: Path | None  # the checkpoint to go on from


def train_run(
    config: RunConfig,
    resume: bool = False,
    overwrite: bool = False,
    pass_over: Pass = in_one_task,
    part: float = 1.0,
) -> RunSummary:
    """Train one model in this process and leave its last checkpoint in the run directory.

    Args:
        config: the run; its workers mean nothing here.
        resume: go on from the last checkpoint.
        overwrite: replace a run that is there.
        pass_over: how sums over all cells are made, where a model needs any.
        part: train up to this part of all steps, rounded up, and leave the rest to a later `resume`: the run ends with
            the same bits as one that was never divided.

    Raises:
        UserError: the store, the run directory or the settings do not allow it.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint of that step is left, if it was not before the first one.
    """
    with begun(config, resume, overwrite, is_here=True) as run:
        return train_begun(run, overwrite, pass_over, part)


def train_begun(run: Begun, overwrite: bool = False, pass_over: Pass = in_one_task, part: float = 1.0) -> RunSummary:
    """`train_run`, of a run that has begun."""
    started = time.monotonic()
    learns = prepared(run, overwrite, pass_over)
    with logging_outcome(run.place) as log_outcome, tracking(run.place.folder, run.config, run.view) as tracker:
        summary = _train(run, learns, tracker, started, part) if learns else None
        final = checkpoint.latest(run.place.folder / "checkpoints")
        log_outcome(tracker, final)
    summary = summary or finished(run, final)
    return replace(summary, augmentation=augmentation.reason(run.place.folder), tracking=tracker.where())


@contextmanager
def begun(config: RunConfig, resume: bool, overwrite: bool, is_here: bool) -> Iterator[Begun]:
    """Hold the run directory while the block runs, its settings written or compared with those that are there.

    Args:
        config: the run.
        resume: go on from the last checkpoint.
        overwrite: replace a run that is there.
        is_here: whether this machine trains, and must have the device and the memory.

    Raises:
        UserError: the store, the run directory or the settings do not allow it.
        Interrupted: a signal has come while pilots ran.
    """
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    run = joined(config.runs, config.name)
    config = _with_streams_of(run, config) if resume else config
    view, held_out = cells_of(config)
    refuse_unfit(config, view, is_here)
    config = resolved(config, view)
    with mirrored(run, resume, overwrite) if is_remote(run) else locked(Path(run), resume, overwrite) as place:
        config = augmentation.as_begun(place.folder, config) if resume else config
        start = prepare(place.folder, config, view, resume)
        place.deliver()
        logger.info("%s", "\n".join([f"store: {view.store.summary()}", *view.lines]))
        yield Begun(place, _settled(place, config, view, overwrite), view, held_out, start)


def cells_of(config: RunConfig) -> tuple[View, View | None]:
    """The cells to train on, and those held out.

    Raises:
        UserError: the store or the selection does not allow it.
    """
    return divided(select(open_store(config.store), config), config.training.validation, config.training.seed)


def _with_streams_of(run: str, config: RunConfig) -> RunConfig:
    """The settings with the number of streams of a run that is there, where none is given."""
    if config.training.streams is not None:
        return config
    try:
        before: Tree = yaml.safe_load(open_storage(run).read("config.yaml"))
        update = {"streams": before["training"]["streams"]}
    except (FileNotFoundError, yaml.YAMLError, KeyError, TypeError):  # said where the run is opened
        return config
    return config.model_copy(update={"training": config.training.model_copy(update=update)})


def _settled(place: Workplace, config: RunConfig, view: View, overwrite: bool) -> RunConfig:
    """The settings without an "auto", after pilots where those are to choose.

    Raises:
        RunError: this machine, where they run, has no such device or too little memory.
        Interrupted: a signal has come before they were done.
    """
    if not models.pilot_epochs(config.model):
        return config
    refuse_unfit(config, view)
    with stopped_at_once(f"stopped among the pilots of model.augmentation=auto; they start anew: {_again(overwrite)}"):
        config = augmentation.settled(place.folder, config, view, precision_of(config.training))
    place.deliver()
    return config


def prepared(run: Begun, overwrite: bool, pass_over: Pass) -> Learning | None:
    """What is to be learnt from where the run stands, with a line in the log; None after the last step.

    Raises:
        Interrupted: a signal has come before it was ready.
    """
    if is_over(run):
        return None
    step = 0 if run.start is None else checkpoint.describe(run.start).step
    message = f"stopped in its preparation, before step {step + 1}: there is nothing to save; {_again(overwrite)}"
    with stopped_at_once(message):
        learns = learning(run.config, run.view, run.held_out, pass_over=pass_over)
        if run.start is not None:
            checkpoint.restore(run.start, learns.state)
    logger.info("training: %s", "\n".join(learns.lines))
    return learns


def is_over(run: Begun) -> bool:
    """Whether there is no step left; then with a line in the log."""
    if run.start is None:
        return False
    step, early = checkpoint.describe(run.start).step, stopped_early(run.config, run.view, run.start)
    if early or step >= steps_of(run.config, run.view):
        logger.info("training: %s", early or f"all {step} steps are done")
        return True
    return False


def _again(overwrite: bool) -> str:
    return "the same command starts it again" if overwrite else "go on with the same command and --resume"


def _train(run: Begun, learns: Learning, tracker: Tracker, started: float, part: float) -> RunSummary:
    state, folder, until = learns.state, run.place.folder, math.ceil(part * learns.steps)
    with (
        collected() as signals,
        metrics_file(folder, state.step) as write,
        news_bar(state.step, learns.steps) as show,
        keeping(run.place, run.config, run.view, learns) as keeper,
    ):
        logs = (write, tracker.log_metrics)
        stepping = Stepping(run.config, learns, ALONE, keeper.save, logs, show, lambda: bool(signals), started)
        stepping.go(until)
    final = checkpoint.latest(folder / "checkpoints")
    if stepping.stopped:
        raise interrupted(state.step, learns.steps, joined(run.place.run, "checkpoints", final.name), signals[0])
    seconds = time.monotonic() - started
    return summary_of(run, final, seconds, stepping.cells / seconds, stepping.losses)


def interrupted(step: int, steps: int, path: str, signum: int) -> Interrupted:
    """What is raised after a signal, when the checkpoint is there."""
    return Interrupted(
        f"stopped at step {step} of {steps}; {path} is saved; go on with the same command and --resume", signum
    )


def summary_of(
    run: Begun, final: Path, seconds: float, cells_per_second: float, losses: dict[str, float]
) -> RunSummary:
    """Of a run that has taken steps; with a line in the log where held-out cells have ended it."""
    early, step = stopped_early(run.config, run.view, final), checkpoint.describe(final).step
    if early and losses:
        logger.info("training: %s", early)
    there = joined(run.place.run, "checkpoints", final.name)
    return RunSummary(run.place.run, there, step, seconds, cells_per_second, losses, early)


def finished(run: Begun, final: Path) -> RunSummary:
    """Of a run that had no step left."""
    return summary_of(run, final, seconds=0.0, cells_per_second=0.0, losses={})


def stopped_early(config: RunConfig, view: View, path: Path) -> str:
    """Why a checkpoint before the last step is the final one, in words; empty where it is not."""
    schedule = schedule_of(config, view)
    return schedule.verdict(checkpoint.describe(path).looks) if schedule else ""


@contextmanager
def news_bar(first: int, steps: int) -> Iterator[Callable[[News], None]]:
    """A progress bar over the steps; yields what moves it."""
    with bar("loss {task.fields[loss]:.4f}", "{task.fields[rate]:,.0f} cells/s{task.fields[who]}") as progress:
        task = progress.add_task("train", total=steps, completed=first, loss=math.nan, rate=0.0, who="")
        yield lambda news: progress.update(
            task, completed=news.step, loss=news.loss, rate=news.cells_per_second, who=news.who
        )
