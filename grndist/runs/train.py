"""Training in this process."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from grndist import models
from grndist.data.batch import Batch
from grndist.data.loader import Loader
from grndist.data.normalise import moments
from grndist.data.plan import BalancedPlan, ShuffledPlan
from grndist.data.store import BLOCK, Store, open_store
from grndist.genes import CONTROL
from grndist.optim import Optimizers
from grndist.progress import bar
from grndist.runs.config import RunConfig
from grndist.runs.folder import Interrupted, RunError, locked, metrics_file, prepare, tracking
from grndist.tracking import Tracker
from grndist.training import checkpoint
from grndist.training.loop import State, train


@dataclass(frozen=True)
class RunSummary:
    """What a finished run says at the end."""

    folder: Path
    checkpoint: Path
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
    _check_controls(config, store)
    folder = config.runs / config.name
    with locked(folder, resume, overwrite):
        start = prepare(folder, config, store, resume)
        state, loader = _build(config, store)
        if start is not None:
            checkpoint.restore(start, state)
        with tracking(folder, config, store) as tracker:
            summary = _train(folder, config, store, state, loader, tracker)
        return replace(summary, tracking=tracker.where())


def _build(config: RunConfig, store: Store) -> tuple[State, Loader]:
    training = config.training
    model = models.build(config.model, store.n_genes, lambda: moments(store, config.expression), training.seed)
    genes = training.genes_per_step or store.n_genes
    plan: BalancedPlan | ShuffledPlan
    if training.sampling == "per_perturbation":
        plan = BalancedPlan(
            store.perturbed, store.n_genes, training.cells_per_step, genes, training.seed, training.streams,
            training.cells_per_perturbation, training.cells_per_epoch,
        )  # fmt: skip
    else:
        plan = ShuffledPlan(
            store.n_cells, store.n_genes, training.cells_per_step, genes, training.seed, training.streams, BLOCK
        )
    state = State(model, Optimizers(training, model.parameter_groups()))
    return state, Loader(store, plan, config.expression)


def _train(folder: Path, config: RunConfig, store: Store, state: State, loader: Loader, tracker: Tracker) -> RunSummary:
    steps = config.training.epochs * loader.plan.steps_per_epoch
    first, started = state.step, time.monotonic()
    last: dict[str, float] = {}
    cells = 0
    with _stop_signals() as stopped, metrics_file(folder, first) as write, _training_bar(first, steps) as show:

        def save() -> Path:
            about = checkpoint.Description(
                state.step, config.model_dump(mode="json"), list(store.panel.names), store.digest
            )
            return checkpoint.save(folder / "checkpoints", state, about)

        def on_step(state: State, batch: Batch, losses: dict[str, float]) -> None:
            nonlocal cells
            cells += len(batch.expression)
            last.update(losses)
            rate = cells / (time.monotonic() - started)
            show(losses["loss"], rate)
            if state.step % config.training.log_every == 0 or state.step == steps:
                numbers = losses | {"epoch": batch.epoch, "cells_per_second": rate}
                write(state.step, numbers)
                tracker.log_metrics(state.step, numbers)
            if stopped:
                raise Interrupted(
                    f"stopped at step {state.step} of {steps}; {save()} is saved; "
                    "go on with the same command and --resume",
                    stopped[0],
                )
            if state.step % config.training.checkpoint_every == 0 and state.step < steps:
                save()

        train(state, loader.batch_at, steps, on_step)
        final = save() if state.step > first else checkpoint.latest(folder / "checkpoints")
    seconds = time.monotonic() - started
    tracker.log_model({name: final / name for name in ("weights.safetensors", "checkpoint.json")})
    return RunSummary(folder, final, state.step, seconds, cells / max(seconds, 1e-9), last)


def _check_controls(config: RunConfig, store: Store) -> None:
    """Refuse a model that compares with controls where there are perturbations but no controls."""
    perturbed = store.perturbed
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
