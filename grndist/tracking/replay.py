"""What waits in spools, brought to MLflow later. Twice, or killed half-way and begun again, it comes to the same.

A spool goes when all of it has arrived. A run that a kill has ended has the status KILLED then; numbers that were lost
with it, but are in metrics.jsonl, are sent, too.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grndist.config import validate
from grndist.errors import UserError
from grndist.files import remove
from grndist.storage import Storage, is_remote, joined, open_storage
from grndist.tracking.config import TrackingConfig
from grndist.tracking.mlflow_run import prepare_mlflow
from grndist.tracking.opening import remove_twins, uri_of
from grndist.tracking.record import NAME as RECORD
from grndist.tracking.record import read_record, write_record
from grndist.tracking.sender import ARRIVED, Sender, root_cause
from grndist.tracking.spool import HEAD, Entry, Head, Spool, head_of, held, spools_below
from grndist.tracking.spool import NAME as SPOOL

METRICS = "metrics.jsonl"

logger = logging.getLogger(__name__)


class Unanswered(UserError):  # noqa: N818 - the store's error, not one of the user's
    """A store does not answer."""


class RefusedError(UserError):
    """A store answers, but does not take something."""


def replay(places: Sequence[str], say: Callable[[str], None], uri: str = "") -> None:
    """Send what waits below some run directories, run roots or folders of a sweep, paths or URLs.

    Args:
        places: where to look.
        say: called with a line for every run.
        uri: another server or database than that of the settings, for runs of which none has anything yet.

    Raises:
        UserError: there is no such folder; a store does not answer, or does not take something. What could be sent
            elsewhere has been sent by then.
    """
    prepare_mlflow()
    validate(TrackingConfig, {"uri": uri}, "--uri")
    silent: dict[str, str] = {}
    mistakes: list[str] = []
    found = [waiting for place in places for waiting in _waiting(place)]
    for waiting in sorted(found, key=lambda waiting: waiting.is_child):  # a child looks for its parent
        store = uri or uri_of(waiting.head)
        if store in silent:
            continue
        try:
            say(waiting.send(uri))
        except Unanswered as error:
            silent[store] = str(error)
        except RefusedError as error:
            mistakes.append(str(error))
    if not found:
        say(f"nothing waits for MLflow in {', '.join(places)}")
    mistakes += [f"{cause}; what waits for it stays; start it, and give the same command" for cause in silent.values()]
    if mistakes:
        raise UserError("\n".join(mistakes))


@dataclass(frozen=True)
class _Waiting:
    """A spool in a run directory on this machine."""

    folder: Path
    head: Head

    @property
    def is_child(self) -> bool:
        return bool(self.head.config.parent)

    def send(self, uri: str) -> str:
        return _sent(self.folder, str(self.folder.parent), uri)


@dataclass(frozen=True)
class _WaitingAtURL(_Waiting):
    """A spool in a run directory at a URL: brought here, and deleted there when it was sent."""

    storage: Storage
    keys: tuple[str, ...]  # of the spool's files
    run: str  # key of the run directory, empty if the storage is one

    def send(self, uri: str) -> str:
        there = joined(self.storage.url, self.run) if self.run else self.storage.url
        with tempfile.TemporaryDirectory(prefix="grndist-replay-") as aside:
            run = Path(aside) / "run"
            base = f"{self.run}/" if self.run else ""
            for key in (*self.keys, f"{base}{RECORD}", f"{base}{METRICS}"):
                path = run / key.removeprefix(base)
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    path.write_bytes(self.storage.read(key))
                except FileNotFoundError:  # a run at a URL need not have numbers there
                    continue
            folder = run / self.folder
            if not _has_ended(folder):
                return f"{there}: goes on, or was killed: it sends this itself, with --resume in the second case"
            said = _sent(folder, there, uri)
            self.storage.write(f"{base}{RECORD}", (run / RECORD).read_bytes())
        self.storage.delete(sorted(self.keys, key=lambda key: key.endswith(HEAD)))
        return said


def _waiting(place: str) -> Iterator[_Waiting]:
    if is_remote(place):
        yield from _waiting_at(open_storage(place))
        return
    if not Path(place).is_dir():
        raise UserError(f"{place}: there is no such folder; give a run directory, a run root or the folder of a sweep")
    for folder in spools_below(Path(place).resolve()):
        if head := head_of(folder):
            yield _Waiting(folder, head)


def _waiting_at(storage: Storage) -> Iterator[_Waiting]:
    keys = list(storage.sizes())
    for key in keys:
        folder, _, name = key.rpartition("/")
        run, _, spool = folder.rpartition("/")
        if name == HEAD and spool.startswith(SPOOL):
            own = tuple(other for other in keys if other.startswith(f"{folder}/"))
            head = Head.model_validate_json(storage.read(key))
            yield _WaitingAtURL(Path(spool), head, storage, own, run)


def _sent(folder: Path, run: str, uri: str) -> str:
    """Send a spool, and say what has gone where.

    Raises:
        Unanswered: the store does not answer; what has not been sent stays.
        RefusedError: it does not take something, which stays.
    """
    head, lock = _head_for(head_of(folder), run, uri), held(folder)
    if lock is None:
        return f"{run}: the run goes on, and sends this itself"
    spool = Spool(folder, lock, head)
    sender, store = Sender(spool), uri_of(spool.head)
    try:
        status = _send_all(sender, folder.parent)
    except ImportError as error:
        raise Unanswered(
            f"{store}: a database needs the whole of MLflow, and here is mlflow-skinny ({error}): pip install "
            "'grndist[mlflow]', or name a server with --uri"
        ) from None
    except Exception as error:  # whatever MLflow raises
        logger.debug("MLflow failed", exc_info=True)
        raise Unanswered(f"MLflow at {store} does not answer ({root_cause(error)})") from None
    finally:
        spool.release()
    if spool.sent.refused:
        why = "; ".join(f"{what} ({cause})" for what, cause in sender.refusals.items())
        raise RefusedError(f"{run}: MLflow at {store} answers, but does not take {why}; this stays in {folder}")
    _record(folder.parent, spool.head, status)
    remove(folder)
    what = ", ".join(f"{sender.arrived[name]:,} {name}" for name in ARRIVED if sender.arrived[name])
    what = what or "nothing was missing"
    return f"{run}: {what} -> {store}, run {spool.head.run_id}{f', {status}' if status else ''}"


def _send_all(sender: Sender, run: Path) -> str:
    """Everything, in order; return the status that the run has at the end, empty if it is not the spool's to say."""
    sender.send_refused()
    sender.send()
    sender.send_points(_numbers(run / METRICS))
    opened = sender.open()
    remove_twins(opened, sender.spool.head)
    entries = [placed.entry for placed in sender.spool.entries()]
    ends = [entry for entry in entries if entry["kind"] == "status"]
    if not ends:
        return ""
    status, when = ends[-1]["status"], ends[-1]["time"]
    if status == "RUNNING":  # nobody was there to say how it ended
        status, when = "KILLED", entries[-1]["time"]
    opened.set_status(status, when)
    return str(status)


def _numbers(file: Path) -> Iterator[tuple[int, int, dict[str, float]]]:
    """What metrics.jsonl has, with the time when it was written last: step, milliseconds, values."""
    if not file.is_file():
        return
    when = int(file.stat().st_mtime * 1000)
    for line in file.read_bytes().splitlines():
        try:
            values: Entry = json.loads(line)
            step = int(values.pop("step"))
        except (ValueError, KeyError):  # cut short by a kill
            continue
        yield step, when, values


def _head_for(head: Head | None, run: str, uri: str) -> Head:
    """The head of a spool with the place to send it to."""
    assert head is not None
    if uri and head.run_id and uri_of(head) != uri:
        raise RefusedError(f"{run}: a part of this run is in {uri_of(head)} already; leave out --uri")
    if uri:
        head = head.model_copy(update={"config": head.config.model_copy(update={"uri": uri})})
    if not Path(head.root).is_dir():  # it was moved, or this is another machine
        head = head.model_copy(update={"root": str(Path.cwd() if is_remote(run) else Path(run).parent)})
    return head.model_copy(update={"run": run})


def _has_ended(folder: Path) -> bool:
    head = head_of(folder)
    lock = held(folder) if head else None
    if head is None or lock is None:
        return False
    spool = Spool(folder, lock, head)
    statuses = [placed.entry["status"] for placed in spool.entries() if placed.entry["kind"] == "status"]
    spool.release()
    return statuses[-1:] != ["RUNNING"]


def _record(run: Path, head: Head, status: str) -> None:
    """Let tracking.json say what has become of the run."""
    record = read_record(run)
    if record is not None and record.key == head.key:
        changes = {"run_id": head.run_id, "config": head.config} | ({"status": status} if status else {})
        write_record(run, record.model_copy(update=changes))
