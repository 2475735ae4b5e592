"""A run directory at a URL: the run is worked on in a folder of this machine, and what changes there is copied up.

    owner       the token of the process whose run it is; object stores have no locks, so it is compared before
                every file that is written, and a run that another process has taken over stops
    the rest    as in a run directory on this machine

A checkpoint's checkpoint.json goes last: without it the checkpoint does not exist.
"""

import logging
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grndist.errors import UserError
from grndist.files import WriteError, remove
from grndist.runs.workplace import RunError, Workplace, refuse
from grndist.storage import Storage, open_storage
from grndist.tracking.spool import NAME as SPOOL
from grndist.training import checkpoint

OWNER = "owner"
CHECKPOINTS = "checkpoints"
TOP_FILES = ("config.yaml", "augmentation.json", "metrics.jsonl", "tracking.json")

logger = logging.getLogger(__name__)


class TakenOverError(RunError):
    """Another process goes on with this run."""


class Mirror:
    """Copies a folder of this machine up to a run directory at a URL, which the first time becomes this process's own.

    With `replace`, what is there stays until the folder has a checkpoint, then makes way for it. With `token` the run
    is that of a process that works on it elsewhere, too, on this one's behalf.
    """

    def __init__(self, storage: Storage, folder: Path, replace: bool, token: str = ""):
        self.storage = storage
        self.folder = folder
        self.replace = replace
        self.token = token or uuid.uuid4().hex
        self.is_owner = bool(token)
        self.there = set(storage.sizes()) - {OWNER}
        self._copied: dict[str, tuple[int, int]] = {}  # bytes and time of change of what is up there

    def fetch(self) -> None:
        """Bring what a run goes on from: its settings, numbers, newest whole checkpoint, and what waits for MLflow."""
        for key in (key for key in self.there if key in TOP_FILES or key.startswith(SPOOL)):
            path = self.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.storage.read(key))
        if checkpoint.whole(self.there):
            checkpoint.fetch_latest(self.storage, CHECKPOINTS, self.folder / CHECKPOINTS)
        self._copied = self._state()

    def push(self) -> None:
        """Bring up what has changed, whole checkpoints only, and remove checkpoints that are no longer kept.

        Raises:
            StorageError: it could not all be brought there.
            TakenOverError: the run is another process's by now.
        """
        self._own()
        if self.replace and not checkpoint.checkpoints(self.folder / CHECKPOINTS):
            return
        old = self.there if self.replace else set()
        self._delete({key for key in old if key.endswith("/checkpoint.json")})  # no mixture of two runs' files
        now = self._state()
        for key in sorted(now, key=_order):
            if self._copied.get(key) != now[key]:
                self._own()
                self.storage.write(key, (self.folder / key).read_bytes())
                self._copied[key] = now[key]
                self.there.add(key)
        sent = {key for key in self._copied if key.startswith(SPOOL)}  # a worker knows of none
        self._delete((old | sent | self._not_kept()) - now.keys())
        self.replace = False

    def _state(self) -> dict[str, tuple[int, int]]:
        """Every file of the folder that is not hidden, and what tells whether it has changed."""
        state = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                state[name.as_posix()] = (path.stat().st_size, path.stat().st_mtime_ns)
        return state

    def _own(self) -> None:
        if not self.is_owner:
            self.is_owner = True
            self.storage.write(OWNER, self.token.encode())
            return
        try:
            mine = self.storage.read(OWNER).decode(errors="replace") == self.token
        except FileNotFoundError:
            mine = False
        if not mine:
            raise TakenOverError(
                f"{self.storage.url}: another process has taken this run over, or it was deleted, so this one stops; "
                "what it did after its last checkpoint is lost. Give one of the two another name=..."
            )

    def _not_kept(self) -> set[str]:
        """Files of checkpoints that are neither among the last whole ones nor in the folder."""
        below = {key for key in self.there if key.startswith(f"{CHECKPOINTS}/")}
        kept = {*checkpoint.whole(below)[-checkpoint.KEPT :], *(p.name for p in (self.folder / CHECKPOINTS).glob("*"))}
        return {key for key in below if key.split("/")[1] not in kept}

    def _delete(self, keys: set[str]) -> None:
        self.storage.delete(sorted(keys, key=_order, reverse=True))  # checkpoint.json first
        self.there -= keys
        self._copied = {key: state for key, state in self._copied.items() if key not in keys}


def _order(key: str) -> tuple[int, bool, str]:
    """Settings before checkpoints, and of those checkpoint.json last."""
    return key.count("/"), key.endswith("/checkpoint.json"), key


@contextmanager
def mirrored(url: str, resume: bool, overwrite: bool, token: str = "") -> Iterator[Workplace]:
    """Work on the run at `url` in a temporary folder; its last state is brought up however the block ends.

    `token` is that of the process that this one works for.

    Raises:
        RunError: it is there already, or is not there to resume.
        StorageError: the place cannot be used; what was not brought there is kept, and a warning says where.
    """
    storage = open_storage(url)
    aside = Path(tempfile.mkdtemp(prefix="grndist-run-"))
    folder, settled = aside / url.rpartition("/")[2], True
    try:
        folder.mkdir()
        mirror = Mirror(storage, folder, overwrite, token)
        refuse(url, bool(mirror.there), "config.yaml" in mirror.there, resume, overwrite)
        with _called(url, folder):
            if resume:
                mirror.fetch()
            settled = False
            yield Workplace(folder, url, mirror.push, mirror.token)
        mirror.push()
        settled = True
    except TakenOverError:
        settled = True
        raise
    except BaseException:
        settled = settled or not mirror.is_owner or _brought_up(mirror)
        raise
    finally:
        if settled:
            remove(aside)
        else:
            logger.warning("%s: what has not arrived there is kept in %s; copy it up, or --resume", url, folder)


def _brought_up(mirror: Mirror) -> bool:
    try:
        mirror.push()
    except UserError:
        return False
    return True


@contextmanager
def _called(url: str, folder: Path) -> Iterator[None]:
    """Say the run's URL, not its temporary folder, in messages; except where that folder's disk is the trouble."""
    try:
        yield
    except WriteError:
        raise
    except UserError as error:
        error.args = (str(error).replace(str(folder), url),)
        raise
