"""What is in a run directory, and where else its numbers go."""

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from grndist.config import ConfigError, Tree, read_tree, validate
from grndist.data.view import View
from grndist.files import WriteError, written_aside
from grndist.runs.config import RunConfig
from grndist.runs.stopping import Interrupted
from grndist.runs.workplace import RunError
from grndist.storage import is_remote, joined, open_storage
from grndist.tracking import Place, Status, Tracker, TrackingConfig, open_tracker
from grndist.tracking.record import NAME as RECORD
from grndist.tracking.record import Record, Recorder, begun, parsed_record
from grndist.tracking.spool import is_held
from grndist.training import checkpoint

AUGMENTATION = "augmentation.json"  # what pilots have measured, and chosen

logger = logging.getLogger(__name__)


def prepare(folder: Path, config: RunConfig, view: View, resume: bool) -> Path | None:
    """Write the resolved config of a new run, or check that a resumed one is the same; return where to start from."""
    settings = config.model_dump(mode="json")
    if not resume:
        (folder / AUGMENTATION).unlink(missing_ok=True)
        write_config(folder, config, view)
        return None
    before = read_tree(folder / "config.yaml")
    found = checkpoint.checkpoints(folder / "checkpoints")
    if found:
        checkpoint.check_panel(found[-1], checkpoint.describe(found[-1]), view.panel.names)
    if before.pop("store_digest", None) != view.store.digest:
        raise RunError(
            f"{folder}: {config.store} is not the store this run was started on (its digest differs); "
            "give that store, or start anew with --overwrite"
        )
    seen = before.pop("view_digest", None)
    changed = _differences(_of_this_version(before, folder), settings)
    if changed:
        raise RunError(
            "\n".join([f"{folder}: --resume goes on with the run's own settings, but these differ:", *changed])
            + "\ngive the old values, or start another run with name=..."
        )
    if seen != view.digest:
        raise RunError(
            f"{folder}: the same settings choose other cells or genes than before; a list or table that they name "
            "has changed: bring the old one back, or start anew with --overwrite"
        )
    return found[-1] if found else None


def write_config(folder: Path, config: RunConfig, view: View) -> None:
    """Write the settings, with what tells the store and the view."""
    digests = {"store_digest": view.store.digest, "view_digest": view.digest}
    with written_aside(folder / "config.yaml", overwrite=True) as aside:
        aside.write_text(yaml.safe_dump(config.model_dump(mode="json") | digests, sort_keys=False))


def _of_this_version(before: Tree, folder: Path) -> Tree:
    """The settings of a run, with the defaults of those that are newer than it."""
    try:
        return validate(RunConfig, before, folder / "config.yaml").model_dump(mode="json")
    except ConfigError as error:
        raise RunError(
            f"{folder} is of another version of grndist, whose settings are not those of this one; go on with that "
            f"version, or start anew with --overwrite\n{error}"
        ) from None


def _differences(before: Tree, now: Tree, prefix: str = "") -> list[str]:
    """Keys whose values differ; not the workers, nor what a sweep says of its trials.

    Paths may, since runs and stores can be moved, and the preset's name.
    """
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new, place = before.get(key), now.get(key), f"{prefix}{key}"
        if place in ("workers", "tracking.parent", "tracking.tags"):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{place}.")
        elif old != new and place not in ("store", "runs", "preset"):
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
def tracking(folder: Path, config: RunConfig, view: View) -> Iterator[Tracker]:
    """Log the run to the place of its config; tracking.json remembers where, and how the run ended.

    What MLflow does not take waits in tracking-spool, which a resumed run sends first, and `replay` later.
    """
    settings, root = _placed(config)
    recorder = begun(folder, settings)
    place = Place(folder, joined(config.runs, config.name))
    tracker = open_tracker(settings, root, config.name, recorder.record.run_id, place, recorder, is_run=True)
    tracker.log_settings(
        config.model_dump(mode="json") | {"store_digest": view.store.digest, "view_digest": view.digest}
    )
    tracker.log_dataset(config.store.rstrip("/").rpartition("/")[2], view.store.digest, config.store)
    with closed_at_end(tracker):
        yield tracker


@contextmanager
def closed_at_end(tracker: Tracker) -> Iterator[None]:
    """Close a tracker when the block ends: finished, killed if a signal has ended it, or failed."""
    status: Status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)


def _placed(config: RunConfig) -> tuple[TrackingConfig, Path]:
    """How to track, and the folder for MLflow's own files: the run root, or where one stands if that is at a URL."""
    settings = config.tracking
    if not is_remote(config.runs):
        return settings, Path(config.runs)
    root = Path.cwd()
    if settings.kind == "mlflow" and not settings.uri:
        settings = settings.model_copy(update={"uri": f"sqlite:///{root / 'mlflow.db'}"})
        logger.info("%s is at a URL, where MLflow's database cannot be; it is in %s (tracking.uri)", config.runs, root)
    return settings, root


@contextmanager
def tracked(run: str | Path) -> Iterator[Tracker]:
    """Re-open the tracking of a run directory, to add an edge list or scores; its status stays as it was.

    Nothing is tracked where the directory, a path or URL, does not say how (it was moved away, say). A run at a URL
    keeps what MLflow does not take in a temporary folder of this machine.
    """
    try:
        about = parsed_record(open_storage(run).read(RECORD), f"{run}/{RECORD}")
    except FileNotFoundError:
        about = Record(config=TrackingConfig(kind="none"))
    if is_remote(run):
        folder, root, recorder = Path(tempfile.mkdtemp(prefix="grndist-tracking-")), Path.cwd(), Recorder(about)
    else:
        folder, root, recorder = Path(run), Path(run).parent, Recorder(about, Path(run))
    was_killed = about.status == "RUNNING" and not is_held(folder)
    place = Place(folder, str(folder))
    tracker = open_tracker(about.config, root, Path(run).name, about.run_id, place, recorder)
    try:
        yield tracker
    finally:
        tracker.close("KILLED" if was_killed else "")
        if is_remote(run):
            with suppress(OSError):  # it stays if something waits in it
                folder.rmdir()
