"""Writing aside, then renaming: a path is either whole or not there."""

import ctypes
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grndist.errors import UserError


class WriteError(UserError):
    """The disk is full, or the folder may not be written."""

    def __init__(self, path: Path, reason: str, remedy: str = "free some space or choose another place"):
        super().__init__(f"{path}: could not be written ({reason}); nothing was changed there; {remedy}")
        self.path, self.reason, self.remedy = path, reason, remedy

    def __reduce__(self) -> tuple[Callable, tuple]:  # it may come from another process
        return type(self), (self.path, self.reason, self.remedy)


@contextmanager
def written_aside(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to fill as a file or a directory, then put it in place.

    If the block raises, the sibling is removed and whatever was at `path` is still there.

    Raises:
        UserError: `path` exists and `overwrite` is false, or its parent folder is missing.
        WriteError: the disk is full.
    """
    refuse_existing(path, overwrite)
    aside = aside_of(path)
    try:
        yield aside
        put_in_place(aside, path)
    except OSError as error:
        remove(aside)
        raise WriteError(path, error.strerror or str(error)) from error
    except BaseException:
        remove(aside)
        raise


def aside_of(path: Path) -> Path:
    """A new hidden name beside `path`."""
    return path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}{path.suffix}")


def write_whole(path: Path, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write a file from its pieces: after a kill or a power cut it is whole or not there.

    Raises:
        WriteError: the disk is full, or the folder may not be written.
    """
    aside = aside_of(path)
    try:
        with aside.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)  # noqa: PTH105 - atomic on POSIX
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WriteError(path, error.strerror or str(error)) from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def locked(file: Path, refusal: str) -> Iterator[None]:
    """Hold `file` for this process alone; the lock goes with the process, however it ends.

    Raises:
        UserError: another process holds it; the message is `refusal`.
    """
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(refusal) from None
        yield


def refuse_existing(path: Path, overwrite: bool = False) -> None:
    """Raise unless `path` is free or may be overwritten, in a folder that exists; call it before long work."""
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UserError(f"{path} exists already; pass --overwrite to replace it, or choose another name")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist; create it first or choose another place")


def remove(path: Path) -> None:
    """Delete a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def put_in_place(aside: Path, path: Path) -> None:
    """Flush `aside`, a sibling of `path`, to the disk and give it that name; what was there is removed."""
    sync(aside)
    if not path.is_dir():
        os.replace(aside, path)  # noqa: PTH105 - atomic on POSIX
        return
    if not _exchange(aside, path):  # a directory cannot be replaced in one step, but two can change places
        old = path.with_name(f".{path.name}.old-{uuid.uuid4().hex[:8]}")
        path.rename(old)
        try:
            aside.rename(path)
        except BaseException:
            old.rename(path)
            raise
        aside = old
    remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; false where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # Linux
    return renameat2 is not None and renameat2(-100, bytes(one), -100, bytes(other), 2) == 0  # cwd, RENAME_EXCHANGE


def sync(path: Path) -> None:
    """Flush a file, or every file below a directory, to the disk."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
