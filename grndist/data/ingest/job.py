"""The folder an ingest works in: what was asked for, so that only the same command goes on with what is there.

Finished pieces outlive a kill, an interruption, and every failure that the same command may not meet again: a full
disk; a source, scheduler or URL out of reach. They go at the end, when another ingest takes the folder, and after a
mistake in what the sources hold or in the options (`SourceError`), which makes them useless. Where nothing is finished,
nothing stays.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from logging import getLogger
from pathlib import Path
from typing import Any

from grndist.data.sources import Rows, SourceError, UnreadableError
from grndist.errors import UserError
from grndist.files import WriteError, locked, remove, write_whole
from grndist.storage import StorageError

LOG = getLogger(__name__)
SAMPLED = 64  # rows at the beginning and in the middle, to estimate how many values a source has
BYTES_IN_SPILL = 4  # of a count and its column
BYTES_IN_STORE = 2.2  # of the same, compressed
GIB = 2**30
PIECES = ("sources/*/entries.json", "parts/*.json", "shards/*.npz")  # records of what is finished


class IngestInterruptedError(UserError):
    """The ingest was stopped from the keyboard; what is finished stays."""

    exit_status = 130


@dataclass(frozen=True)
class Places:
    """Where an ingest works; both are removed at its end."""

    work: Path  # spill files, records, converted sources
    beside: Path  # holds `store`, on the file system of the store; the same folder as `work` unless --work was given
    target: Path  # the store as the user calls it, for messages; for one at a URL, the folder

    @property
    def store(self) -> Path:
        """The store as far as it is."""
        return self.beside / "store"

    @property
    def folders(self) -> list[Path]:
        """Each once."""
        return list(dict.fromkeys([self.work, self.beside]))

    def remove(self) -> None:
        """Delete what there is of them."""
        for folder in self.folders:
            remove(folder)


@contextmanager
def working(places: Places, asked: dict[str, Any]) -> Iterator[bool]:
    """Hold the folders while the block runs; yields whether there is an unfinished ingest of the same to go on with.

    Args:
        places: the folders, made where they are missing.
        asked: what identifies the ingest; anything that JSON can hold.

    Raises:
        UserError: another ingest is at work there, or the folder cannot be made; or from the block.
        IngestInterruptedError, StorageError, WriteError: from the block, saying how to go on.
    """
    for folder in places.folders:
        _make(folder)
    with ExitStack() as stack:
        for folder in places.folders:
            refusal = f"{folder}: another ingest is at work there; wait for it, or give --work and another store"
            stack.enter_context(locked(folder / "lock", refusal))
        goes_on = _prepared(places, json.loads(json.dumps(asked)))
        try:
            yield goes_on
        except KeyboardInterrupt:
            raise IngestInterruptedError(f"interrupted; {how_to_go_on(places)}") from None
        except WriteError as error:
            raise _full(places, error.path, error.reason) from error
        except StorageError as error:
            raise StorageError(f"{error}; {how_to_go_on(places)}") from error
        except UserError as error:
            if _is_useless(places, error):
                places.remove()
                raise
            raise UserError(f"{error}; {how_to_go_on(places)}") from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise _full(places, Path(error.filename or places.work), error.strerror or str(error)) from error
        places.remove()


def _full(places: Places, path: Path, reason: str) -> WriteError:
    """The store cannot be written; the file is named only where it is on another disk than the store may be."""
    where = "" if path.is_relative_to(places.beside) else f" in {path.parent}"
    return WriteError(places.target, reason + where, f"free some space; {how_to_go_on(places)}")


def _is_useless(places: Places, error: UserError) -> bool:
    """Whether what there is of an ingest cannot help the same command after `error`."""
    begun = any(True for pattern in PIECES for _ in places.work.glob(pattern))
    return not begun or (isinstance(error, SourceError) and not isinstance(error, UnreadableError))


def how_to_go_on(places: Places) -> str:
    """What becomes of finished pieces, for messages."""
    folders = " and ".join(map(str, places.folders))
    return f"what is finished stays: the same command goes on with it, or delete {folders}"


def identity(path: Path) -> list[list[Any]]:
    """Name, bytes and time of change of a file, or of every file of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.exists()]
    return [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(size for _, size, _ in identity(path))


def values_in(rows: Rows) -> int:
    """Stored values of a source: as it says itself, or from a sample."""
    if rows.n_stored is not None:
        return rows.n_stored
    n_cells = rows.shape[0]
    starts = {0, n_cells // 2}
    samples = [rows.read(start, min(start + SAMPLED, n_cells)) for start in starts]
    return int(max(sample.nnz / sample.shape[0] for sample in samples) * n_cells)


def check_space(places: Places, n_values: int, spilled: bool) -> None:
    """Refuse to begin what will not fit on the disk; what is written already needs no room.

    Args:
        places: the folders.
        n_values: non-zero values of the store, or an estimate of it.
        spilled: the spill files are there; only the store is to come.

    Raises:
        UserError: with the GiB needed and available.
    """
    needed = {places.beside: max(n_values * BYTES_IN_STORE - size_of(places.store), 0)}
    if not spilled:
        spill = max(n_values * BYTES_IN_SPILL - size_of(places.work / "parts"), 0)
        one_disk = places.work.stat().st_dev == places.beside.stat().st_dev
        folder = places.beside if one_disk else places.work
        needed[folder] = needed.get(folder, 0) + spill
    for folder, size in needed.items():
        available = shutil.disk_usage(folder).free
        if size > available:
            raise UserError(
                f"{folder.parent}: about {size / GIB:.2f} GiB are needed there and {available / GIB:.2f} GiB are "
                "free; free some space, choose another place for the store, or another folder to work in (--work DIR)"
            )


def _make(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise UserError(f"{folder.parent}: there is no such folder to work in; create it first or choose another")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(folder, error.strerror or str(error)) from error


def _prepared(places: Places, asked: dict[str, Any]) -> bool:
    """Whether the folders hold pieces of the same; those of another ingest are removed."""
    job = places.work / "job.json"
    if _read(job) == asked:
        return True
    leftover = [file for folder in places.folders for file in folder.iterdir() if file.name != "lock"]
    if leftover:
        LOG.info("%s: an unfinished ingest of something else is removed", places.work)
    for file in leftover:
        remove(file)
    write_whole(job, [json.dumps(asked, indent=1).encode()])
    return False


def _read(job: Path) -> dict[str, Any] | None:
    try:
        return json.loads(job.read_text())
    except (FileNotFoundError, ValueError):
        return None


def places_for(store: Path | None, name: str, work: Path | None) -> Places:
    """Where to work for a store.

    Args:
        store: its path; None for one at a URL.
        name: its name.
        work: a folder in which to work; beside the store if None, or in the current folder for one at a URL.
    """
    hidden = f".{name}.ingest"
    if store is None:
        folder = (work or Path.cwd()).absolute() / hidden
        return Places(folder, folder, folder)
    beside = store.absolute().parent / hidden
    return Places(beside if work is None else work.absolute() / hidden, beside, store)


def cut(rows: Sequence[Rows], values: Sequence[int], values_per_part: int) -> list[tuple[int, int, int]]:
    """(source, first row, row after the last) of parts with about `values_per_part` stored values."""
    parts = []
    for source, (matrix, n_values) in enumerate(zip(rows, values, strict=True)):
        n_cells = matrix.shape[0]
        n_parts = min(max(1, -(-n_values // values_per_part)), n_cells)
        bounds = [number * n_cells // n_parts for number in range(n_parts + 1)]
        parts += [(source, a, b) for a, b in pairwise(bounds)]
    return parts
