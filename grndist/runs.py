"""A run: from a run file to a run directory.

    runs/<name>/config.yaml       the resolved settings
                checkpoints/      the last two
                metrics.jsonl     losses and speed over steps
                tracking.json     where MLflow keeps the run

The one place that puts store, plan, model, loop and tracking together.
"""

import fcntl
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from grndist import models
from grndist.config import Config, ConfigError, Tree, merge, parse_overrides, read_tree, validate
from grndist.data.batch import Batch
from grndist.data.loader import Loader
from grndist.data.normalise import ExpressionConfig, moments
from grndist.data.plan import BalancedPlan, ShuffledPlan
from grndist.data.store import BLOCK, Store, open_store
from grndist.errors import UserError
from grndist.files import WriteError, remove, written_aside
from grndist.genes import CONTROL
from grndist.optim import OptimizerConfig, Optimizers
from grndist.progress import bar
from grndist.tracking import Status, Tracker, TrackingConfig, open_tracker
from grndist.training import checkpoint
from grndist.training.loop import State, train

log = logging.getLogger(__name__)


class RunError(UserError):
    """The run directory cannot be used as asked."""


class Interrupted(UserError):  # noqa: N818 - not an error of the user's, but the message is all there is to say
    """The run was asked to stop and has left a checkpoint."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.exit_status = 128 + signum


class TrainingConfig(OptimizerConfig):
    """How the cells are visited, for how long, and how often to look."""

    epochs: int = Field(gt=0)
    cells_per_step: int = Field(gt=0, description="over all workers together")
    genes_per_step: int | None = Field(gt=0, description="genes drawn for each step; null: all genes")
    sampling: Literal["shuffled", "per_perturbation"] = Field(
        "shuffled", description="per_perturbation: equal numbers of cells for every perturbation and for the controls"
    )
    cells_per_perturbation: int = Field(25, gt=0, description="in a row, with sampling per_perturbation")
    cells_per_epoch: int = Field(100_000, gt=0, description="length of an epoch with sampling per_perturbation")
    streams: int = Field(1, gt=0, description="logical streams of cells, dealt to workers; 1 is the published form")
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(500, gt=0, description="steps")
    log_every: int = Field(10, gt=0, description="steps")


class RunConfig(Config):
    """One training run, completely."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run directory below `runs`")
    preset: str = Field("", description="the shipped settings this run started from")
    store: Path
    runs: Path = Field(Path("runs"), description="the run root: run directories, mlflow.db")
    model: models.ModelConfig
    expression: ExpressionConfig
    training: TrainingConfig
    tracking: TrackingConfig = TrackingConfig()


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


# --- the run file ---


def load_run(path: Path, overrides: list[str]) -> RunConfig:
    """Read a run file; what wins, last first: overrides, the file, its preset, what the model's paper prescribes.

    Raises:
        ConfigError: the file is missing or not valid; every problem on a line of its own.
    """
    tree = merge(read_tree(path), parse_overrides(overrides))
    tree = merge(_preset(tree.get("preset"), path), tree)
    model = tree.get("model")
    kind = model.get("kind") if isinstance(model, dict) else None
    if kind not in models.CONFIGS:
        raise ConfigError(
            f"{path}: model.kind is {kind!r}; set it to one of {', '.join(models.CONFIGS)}, "
            f"or give a preset ({', '.join(presets())})"
        )
    tree = merge({"name": path.stem}, dict(models.CONFIGS[kind].run_defaults), tree)
    config = validate(RunConfig, tree, path)
    return config.model_copy(update={"store": config.store.absolute(), "runs": config.runs.absolute()})


def presets() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("grndist.models") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _preset(name: Any, where: Path) -> Tree:
    if name is None:
        return {}
    if name not in presets():
        raise ConfigError(f"{where}: there is no preset {name!r}; the presets are {', '.join(presets())}")
    with resources.as_file(resources.files("grndist.models") / "presets" / f"{name}.yaml") as file:
        return read_tree(file)


# --- training ---


def train_run(config: RunConfig, resume: bool = False, overwrite: bool = False) -> RunSummary:
    """Train one model in this process and leave its last checkpoint in the run directory.

    Raises:
        UserError: the store, the run directory or the settings do not allow it.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint of that step is left.
    """
    store = open_store(config.store)
    _check_controls(config, store)
    folder = config.runs / config.name
    with _locked(folder, resume, overwrite):
        start = _prepare(folder, config, store, resume)
        state, loader = _build(config, store)
        if start is not None:
            checkpoint.restore(start, state)
        with _tracking(folder, config, store) as tracker:
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
    with _stop_signals() as stopped, _metrics(folder, first) as write, _training_bar(first, steps) as show:

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


# --- the run directory ---


@contextmanager
def _locked(folder: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold the run directory for this process alone; the lock goes with the process, however it ends."""
    if folder.exists() and not (resume or overwrite) and _is_run(folder):
        raise RunError(
            f"{folder} exists already; go on with --resume, start it anew with --overwrite, or give another name=..."
        )
    if folder.exists() and not _is_run(folder) and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise RunError(f"{folder} exists and is not a run directory; give another name=... or runs=...")
    if resume and not _is_run(folder):
        raise RunError(f"{folder}: there is no run to resume; leave out --resume to start it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be made: its run root is not a folder of yours ({error.strerror}); give runs=..."
        ) from None
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise RunError(
                f"{folder} is in use by process {handle.read().strip() or '?'}; wait for it, or give another name=..."
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        if overwrite and not resume:
            for path in folder.iterdir():
                if path.name != ".lock":
                    remove(path)
        yield


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _prepare(folder: Path, config: RunConfig, store: Store, resume: bool) -> Path | None:
    """Write the resolved config of a new run, or check that a resumed one is the same; return where to start from."""
    settings = config.model_dump(mode="json")
    if not resume:
        with written_aside(folder / "config.yaml", overwrite=True) as aside:
            aside.write_text(yaml.safe_dump(settings | {"store_digest": store.digest}, sort_keys=False))
        return None
    before = read_tree(folder / "config.yaml")
    found = checkpoint.checkpoints(folder / "checkpoints")
    if found:
        checkpoint.check_panel(found[-1], checkpoint.describe(found[-1]), store.panel.names)
    if before.pop("store_digest", None) != store.digest:
        raise RunError(
            f"{folder}: {config.store} is not the store this run was started on (its digest differs); "
            "give that store, or start anew with --overwrite"
        )
    changed = _differences(before, settings)
    if changed:
        raise RunError(
            "\n".join([f"{folder}: --resume goes on with the run's own settings, but these differ:", *changed])
            + "\ngive the old values, or start another run with name=..."
        )
    return found[-1] if found else None


def _differences(before: Tree, now: Tree, prefix: str = "") -> list[str]:
    """Keys whose values differ; paths may, since a run and its store can be moved."""
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new, place = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{place}.")
        elif old != new and place not in ("store", "runs"):
            lines.append(f"  {place}: {old!r} before, {new!r} now")
    return lines


@contextmanager
def _metrics(folder: Path, step: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Append lines to metrics.jsonl, after dropping those beyond the step a run is resumed from."""
    file = folder / "metrics.jsonl"
    if file.exists():
        lines = [line for line in file.read_text().splitlines() if _step_of(line) <= step]
        with written_aside(file, overwrite=True) as aside:
            aside.write_text("".join(f"{line}\n" for line in lines))
    with file.open("ab", buffering=0) as handle:

        def write(step: int, numbers: dict[str, float]) -> None:
            try:
                handle.write(json.dumps({"step": step} | numbers).encode() + b"\n")
            except OSError as error:
                raise WriteError(file, error.strerror or str(error), "free some space and --resume") from error

        yield write


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # the last line of a killed run may be cut short
        return math.inf


# --- around the loop ---


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


@contextmanager
def _tracking(folder: Path, config: RunConfig, store: Store) -> Iterator[Tracker]:
    """Log the run to the place of its config; tracking.json remembers where, and how the run ended."""
    file = folder / "tracking.json"
    run_id = json.loads(file.read_text())["run_id"] if file.is_file() else ""
    tracker = open_tracker(config.tracking, config.runs, config.name, run_id)

    def remember(status: Status | Literal["RUNNING"]) -> None:
        with written_aside(file, overwrite=True) as aside:
            about = {"run_id": tracker.run_id, "status": status, "config": config.tracking.model_dump(mode="json")}
            aside.write_text(json.dumps(about, indent=1))

    remember("RUNNING")
    tracker.log_settings(config.model_dump(mode="json") | {"store_digest": store.digest})
    tracker.log_dataset(config.store.name, store.digest, config.store)
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        remember(status)
        tracker.close(status)


@contextmanager
def tracked(folder: Path) -> Iterator[Tracker]:
    """Re-open the tracking of a run directory, to add an edge list or scores; its status stays as it was.

    Nothing is tracked where the directory does not say how (it was moved away, say).
    """
    file = folder / "tracking.json"
    nowhere: Tree = {"run_id": "", "status": "FINISHED", "config": {"kind": "none"}}
    about = json.loads(file.read_text()) if file.is_file() else nowhere
    config = validate(TrackingConfig, about["config"], file)
    tracker = open_tracker(config, folder.parent, folder.name, about["run_id"])
    try:
        yield tracker
    finally:
        tracker.close("FAILED" if about["status"] == "RUNNING" else about["status"])
