"""Where a run is worked on, and when it may not be."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from grndist.errors import UserError
from grndist.files import remove
from grndist.training import checkpoint


class RunError(UserError):
    """The run directory cannot be used as asked."""


@dataclass(frozen=True)
class Workplace:
    """The folder of this machine that holds a run while it is worked on."""

    folder: Path
    run: str  # the run directory, a path or URL
    deliver: Callable[[], None]  # bring what has changed to where the run belongs
    token: str = ""  # of the process whose run it is, at a URL


def refuse(run: str, occupied: bool, is_run: bool, resume: bool, overwrite: bool) -> None:
    """Raise unless a run may start, go on or be replaced there.

    Raises:
        RunError: it is there and should not be, is not there and should be, or something else is there.
    """
    if is_run and not (resume or overwrite):
        raise RunError(
            f"{run} exists already; go on with --resume, start it anew with --overwrite, or give another name=..."
        )
    if occupied and not is_run:
        raise RunError(f"{run} exists and is not a run directory; give another name=... or runs=...")
    if resume and not is_run:
        raise RunError(f"{run}: there is no run to resume; leave out --resume to start it")


@contextmanager
def locked(folder: Path, resume: bool, overwrite: bool) -> Iterator[Workplace]:
    """Hold a run directory on this machine for this process alone; the lock goes with the process, however it ends."""
    refuse(str(folder), folder.exists() and bool(_visible(folder)), _is_run(folder), resume, overwrite)
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
            yield Workplace(folder, str(folder), lambda: None)


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
