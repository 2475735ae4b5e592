"""What a run has to log, on disk: written at once, sent later, removed when all of it has arrived in MLflow.

    RUN/tracking-spool/  head.json      which run it is, and where it is logged
                         entries.jsonl  what was logged, in order; only appended to
                         sent.json      how far MLflow has it, and what it has refused
                         files/         files to log: links, or copies where the file system has none

A line that was cut short by a kill does not count. Knows nothing of MLflow.
"""

import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from grndist.config import Config
from grndist.files import aside_of, remove
from grndist.tracking.config import TrackingConfig

NAME = "tracking-spool"
SKIPPED = ("checkpoints", "mlflow-artifacts", ".zarr")
HEAD, ENTRIES, SENT, FILES, LOCK = "head.json", "entries.jsonl", "sent.json", "files", ".lock"

Entry = dict[str, Any]  # what an entry says is in `entries`


class Head(Config):
    """Which run a spool is of."""

    config: TrackingConfig
    root: str  # the run root when it was begun: where SQLite is, if no server is named
    name: str
    run: str  # the run directory, a path or URL, for people
    key: str  # ours; MLflow's run has it as a tag, so that it is made once
    run_id: str = ""  # MLflow's, once known


class Placed(NamedTuple):
    """An entry and where its line stands."""

    start: int
    end: int
    entry: Entry


@dataclass
class Sent:
    """How far MLflow has a spool."""

    upto: int = 0  # bytes of entries.jsonl that were sent or refused
    refused: list[int] = field(default_factory=list)  # where entries start that the store did not take
    models: dict[str, list[str]] = field(default_factory=dict)  # by entry: the run's models before it was sent


class Spool:
    """A spool that this process holds: no other one writes or sends it."""

    def __init__(self, folder: Path, lock: IO[str], head: Head):
        self.folder, self._lock = folder, lock
        self._write(HEAD, head.model_dump_json(indent=1))
        self.head = head
        self.sent = _sent(folder)
        self.is_continued = self.size > 0  # a step may be in it twice
        self._entries: IO[bytes] | None = None

    def remember(self, run_id: str) -> None:
        """Note MLflow's id of the run."""
        if run_id != self.head.run_id:
            self.head = self.head.model_copy(update={"run_id": run_id})
            self._write(HEAD, self.head.model_dump_json(indent=1))

    def append(self, entries: list[Entry]) -> None:
        """Add entries, in one piece."""
        if not entries:
            return
        if self._entries is None:
            self._entries = (self.folder / ENTRIES).open("ab")
            if self._is_cut_short():
                self._entries.write(b"\n")
        self._entries.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        self._entries.flush()

    def _is_cut_short(self) -> bool:
        """Whether a kill has left a part of a line at the end."""
        if not self.size:
            return False
        with (self.folder / ENTRIES).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"

    def adopt(self, path: Path) -> str:
        """Keep a file, linked where that can be; return what it is called below the spool."""
        target = self.folder / FILES / uuid.uuid4().hex[:12] / path.name
        target.parent.mkdir(parents=True)
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copy2(path, target)
        return target.relative_to(self.folder).as_posix()

    def entries(self, start: int = 0) -> Iterator[Placed]:
        """Whole entries, from where one starts."""
        try:
            file = (self.folder / ENTRIES).open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end = start + len(line)
                entry = _parsed(line)
                if entry is not None:
                    yield Placed(start, end, entry)
                start = end

    def save_sent(self) -> None:
        """Leave on disk what has been sent."""
        self._write(SENT, json.dumps(vars(self.sent)))

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        file = self.folder / ENTRIES
        return file.stat().st_size if file.exists() else 0

    def is_empty(self) -> bool:
        """Whether everything has arrived."""
        return not self.sent.refused and next(self.entries(self.sent.upto), None) is None

    def sync(self) -> None:
        """Flush the entries to the disk."""
        if self._entries is not None:
            os.fsync(self._entries.fileno())

    def remove(self) -> None:
        """Delete it; the head goes last, so that a half-deleted one is known for what it is."""
        for name in (FILES, SENT, ENTRIES, HEAD):
            remove(self.folder / name)
        remove(self.folder)
        self.release()

    def release(self) -> None:
        """Let others have it."""
        if self._entries is not None:
            self._entries.close()
            self._entries = None
        self._lock.close()

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        aside = aside_of(path)
        aside.write_text(text)
        os.replace(aside, path)  # noqa: PTH105 - atomic on POSIX


def spool_of(run: Path, head: Head) -> Spool:
    """The spool of a run directory: the one that an earlier process has left, or a new one.

    Beside one that another process holds, as a run does that goes on, there is a second. Where none can be written, it
    is in a temporary folder.
    """
    number = 0
    while True:
        number += 1
        folder = run / (NAME if number == 1 else f"{NAME}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held(folder)
        except OSError:
            folder = Path(tempfile.mkdtemp(prefix=f"grndist-{NAME}-"))
            lock = held(folder)
        if lock is None:
            continue
        before = head_of(folder)
        if before is None:
            return Spool(folder, lock, head)
        if before.key == head.key:
            return Spool(folder, lock, head.model_copy(update={"run_id": head.run_id or before.run_id}))
        lock.close()  # of another run


def new_key() -> str:
    """A key that no other run has."""
    return uuid.uuid4().hex


def held(folder: Path) -> IO[str] | None:
    """The lock of a spool, which goes with this process; None if another one has it."""
    lock = (folder / LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def is_held(run: Path) -> bool:
    """Whether a process logs to this run directory now."""
    folder = run / NAME
    if not (folder / LOCK).exists():
        return False
    lock = held(folder)
    if lock is None:
        return True
    lock.close()
    return False


def spools_below(folder: Path) -> list[Path]:
    """Every spool in a folder and below it; stores, checkpoints and MLflow's own files are not looked into."""
    found = []
    for place, names, files in os.walk(folder):
        if HEAD in files and Path(place).name.startswith(NAME):
            found.append(Path(place))
            names.clear()
        names[:] = sorted(
            name for name in names if not (name.startswith(".") or name.endswith(".zarr") or name in SKIPPED)
        )
    return found


def head_of(folder: Path) -> Head | None:
    """What a spool says of itself, if it is one."""
    try:
        return Head.model_validate_json((folder / HEAD).read_text())
    except (OSError, ValueError):
        return None


def _sent(folder: Path) -> Sent:
    try:
        return Sent(**json.loads((folder / SENT).read_text()))
    except FileNotFoundError:
        return Sent()


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:  # cut short, and another one written after it
        return None
    return entry if isinstance(entry, dict) else None
