"""The run directory: who may write it, what is in it, and where else its numbers go."""

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import yaml

from grndist.config import Tree, read_tree, validate
from grndist.data.store import Store
from grndist.errors import UserError
from grndist.files import WriteError, remove, written_aside
from grndist.runs.config import RunConfig
from grndist.tracking import Status, Tracker, TrackingConfig, open_tracker
from grndist.training import checkpoint


class RunError(UserError):
    """The run directory cannot be used as asked."""


class Interrupted(UserError):  # noqa: N818 - not an error of the user's, but the message is all there is to say
    """The run was asked to stop and has left a checkpoint."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.exit_status = 128 + signum


@contextmanager
def locked(folder: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold the run directory for this process alone; the lock goes with the process, however it ends."""
    if folder.exists() and not (resume or overwrite) and _is_run(folder):
        raise RunError(
            f"{folder} exists already; go on with --resume, start it anew with --overwrite, or give another name=..."
        )
    if folder.exists() and not _is_run(folder) and _visible(folder):
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
        with _replacing(folder) if overwrite else nullcontext():
            yield


@contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    """Set the old run aside until a new one has a checkpoint; if that never happens, put it back."""
    old, checkpoints = folder / ".replaced", folder / "checkpoints"
    if checkpoint.checkpoints(checkpoints) or not old.is_dir():  # else a killed process has left the old run there
        remove(old)
        old.mkdir()
        _move(folder, old)
    try:
        yield
    finally:
        if not checkpoint.checkpoints(checkpoints):
            for path in _visible(folder):
                remove(path)
            _move(old, folder)
        remove(old)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _move(source: Path, target: Path) -> None:
    for path in _visible(source):
        path.rename(target / path.name)


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def prepare(folder: Path, config: RunConfig, store: Store, resume: bool) -> Path | None:
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
def metrics_file(folder: Path, step: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
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


@contextmanager
def tracking(folder: Path, config: RunConfig, store: Store) -> Iterator[Tracker]:
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
