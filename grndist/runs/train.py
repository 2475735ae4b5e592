"""Training in this process."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from grndist.data.selection import select
from grndist.data.store import open_store
from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.view import View
from grndist.genes import CONTROL
from grndist.progress import bar
from grndist.runs.config import RunConfig, TrainingConfig
from grndist.runs.folder import Interrupted, metrics_file, prepare, tracking
from grndist.runs.learning import Learning, learning, resolved
from grndist.runs.mirror import mirrored
from grndist.runs.workplace import RunError, Workplace, locked
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
    tracking: list[str] = field(default_factory=list)


def train_run(config: RunConfig, resume: bool = False, overwrite: bool = False) -> RunSummary:
    """Train one model in this process and leave its last checkpoint in the run directory.

    Raises:
        UserError: the store, the run directory or the settings do not allow it.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint of that step is left.
    """
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    store = open_store(config.store)
    view = select(store, config)
    _check_labels(config, view)
    config = resolved(config, view.n_genes)
    run = joined(config.runs, config.name)
    with mirrored(run, resume, overwrite) if is_remote(run) else locked(Path(run), resume, overwrite) as place:
        start = prepare(place.folder, config, view, resume)
        place.deliver()
        logger.info("%s", "\n".join([f"store: {store.summary()}", *view.lines]))
        learns = learning(config, view)
        logger.info("training: %s", learns.line)
        if start is not None:
            checkpoint.restore(start, learns.state)
        with tracking(place.folder, config, view) as tracker:
            summary = _train(place, config, view, learns, tracker)
        return replace(summary, tracking=tracker.where())


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
    started: float = field(default_factory=time.monotonic)
    cells: int = 0
    losses: dict[str, float] = field(default_factory=dict)  # of the last step

    def after_step(self, state: State, batch: Batch | MomentsBatch, losses: dict[str, float]) -> None:
        """What `training.loop.train` calls.

        Raises:
            Interrupted: a signal has come; a checkpoint of this step is left.
        """
        training, ends = self.config.training, state.step == self.learns.steps
        self.cells += batch.n_cells
        self.losses.update(losses)
        rate = self.cells / (time.monotonic() - self.started)
        self.show(losses["loss"], rate)
        if state.step % training.log_every == 0 or ends:
            for log in self.logs:
                log(state.step, losses | {"epoch": batch.epoch, "cells_per_second": rate})
        if self.stopped:
            raise Interrupted(
                f"stopped at step {state.step} of {self.learns.steps}; {self.save(state)} is saved; "
                "go on with the same command and --resume",
                self.stopped[0],
            )
        if state.step % training.checkpoint_every == 0 and not ends:
            self.save(state)

    def save(self, state: State) -> Path:
        """Leave a checkpoint in the run directory."""
        about = checkpoint.Description(
            state.step, self.config.model_dump(mode="json"), list(self.view.panel.names), self.view.store.digest,
            self.view.panel.regulators, list(self.learns.unmeasured),
        )  # fmt: skip
        path = checkpoint.save(self.place.folder / "checkpoints", state, about)
        try:
            self.place.deliver()
        except StorageError as error:  # what is missing there will come with the next one; the last one must
            logger.warning("%s; %s has not arrived there yet, and the run goes on", error, path.name)
        return path


def _train(place: Workplace, config: RunConfig, view: View, learns: Learning, tracker: Tracker) -> RunSummary:
    state, steps = learns.state, learns.steps
    first = state.step
    with _stop_signals() as stopped, metrics_file(place.folder, first) as write, _training_bar(first, steps) as show:
        under_way = _UnderWay(place, config, view, learns, (write, tracker.log_metrics), show, stopped)
        train(state, learns.batch_at, steps, under_way.after_step, _precision(config.training))
        final = under_way.save(state) if state.step > first else checkpoint.latest(place.folder / "checkpoints")
    seconds = time.monotonic() - under_way.started
    tracker.log_model({name: final / name for name in ("weights.safetensors", "checkpoint.json")})
    there = joined(place.run, "checkpoints", final.name)
    return RunSummary(place.run, there, state.step, seconds, under_way.cells / max(seconds, 1e-9), under_way.losses)


def _precision(training: TrainingConfig) -> Callable[[], AbstractContextManager[Any]]:
    """Inside what a forward pass runs; sets how float32 products are computed."""
    torch.set_float32_matmul_precision("high" if training.precision == "tf32" else "highest")
    if training.precision == "bf16":
        return partial(torch.autocast, "cuda", torch.bfloat16)
    return nullcontext


def _check_labels(config: RunConfig, view: View) -> None:
    """Refuse a device that is not there, and what needs perturbed or control cells where there are none."""
    if config.training.device == "cuda" and not torch.cuda.is_available():
        raise RunError("training.device=cuda: PyTorch finds no CUDA device here; set training.device=cpu")
    if config.expression.transform == "clr" and view.state != "counts":
        raise RunError(
            f"{config.store}: its values are {view.state}, and expression.transform=clr is for counts; ingest the "
            "counts (--layer or --raw may hold them), or set another transform"
        )
    perturbed, share = view.perturbed, config.training.control_share
    if share is not None and config.training.sampling == "per_perturbation":
        missing = "perturbed" if (perturbed < 0).all() else "control"
        if (perturbed < 0).all() or (share > 0 and not (perturbed == CONTROL).any()):
            raise RunError(
                f"{config.store}: no {missing} cells, and training.control_share={share} draws from them; set it to "
                "null, or training.sampling=shuffled"
            )
    if config.model.needs_controls and (perturbed != CONTROL).any() and not (perturbed == CONTROL).any():
        raise RunError(
            f"{config.store}: no control cells, and model.kind={config.model.kind} compares perturbed cells with them; "
            "ingest again with --control LABEL, or set model.interventional_weight=0"
        )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list while the block runs; a second one acts at once."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def receive(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])

    for stop in (signal.SIGINT, signal.SIGTERM):
        before[stop] = signal.signal(stop, receive)
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _training_bar(first: int, steps: int) -> Iterator[Callable[[float, float], None]]:
    with bar("loss {task.fields[loss]:.4f}", "{task.fields[rate]:,.0f} cells/s") as progress:
        task = progress.add_task("train", total=steps, completed=first, loss=math.nan, rate=0.0)
        yield lambda loss, rate: progress.update(task, advance=1, loss=loss, rate=rate)
