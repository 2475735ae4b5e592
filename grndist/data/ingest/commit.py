"""Bringing a finished store to its place: a rename on this machine, an upload to a URL.

At a URL a store exists from the moment its last object is there, uns/grndist/zarr.json; until then nobody can open it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grndist.data.ingest.schedule import Run
from grndist.data.store import COMMITTED, StoreError
from grndist.files import write_whole
from grndist.progress import watched
from grndist.storage import Storage, open_storage


@dataclass(frozen=True)
class Upload:
    """One file on its way; a marker in `markers` says that it arrived."""

    store: Path
    url: str
    markers: Path
    key: str
    size: int

    @property
    def marker(self) -> Path:
        """Where it is noted that the file is there."""
        return self.markers / hashlib.sha256(self.key.encode()).hexdigest()

    def __call__(self) -> None:
        """Upload the file, then note it."""
        open_storage(self.url).write(self.key, (self.store / self.key).read_bytes())
        write_whole(self.marker, [self.key.encode()])


def refuse_remote(url: str, overwrite: bool, begun: bool) -> None:
    """Raise unless a store may be written to `url`.

    Args:
        url: of the store.
        overwrite: replace a store.
        begun: an upload of this store was begun, so that what is there without a whole store is a part of it.

    Raises:
        StoreError: there is something, and it may not be replaced.
        StorageError: the URL cannot be read.
    """
    there = open_storage(url).sizes()
    if COMMITTED in there:
        if not overwrite:
            raise StoreError(f"{url} exists already; pass --overwrite to replace it, or choose another name")
    elif there and not begun and not _unfinished(there):
        raise StoreError(f"{url} holds {len(there)} files and is not a grndist store; choose another name")
    elif there and not begun and not overwrite:
        raise StoreError(f"{url} holds an unfinished store; pass --overwrite to replace it, or choose another name")


def _unfinished(there: dict[str, int]) -> bool:
    """Whether what is there looks like a part of a store."""
    return all(key == "zarr.json" or key.split("/")[0] in ("X", "obs", "var", "uns") for key in there)


def upload(store: Path, url: str, markers: Path, run: Run) -> None:
    """Bring the files of `store` to `url`, going on where an earlier attempt ended; what was there goes away.

    Raises:
        StorageError: the URL cannot be written.
    """
    storage = open_storage(url)
    keys = sorted(file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file())
    begins = not markers.is_dir()
    storage.delete([COMMITTED])  # from here on there is no store, whole or half
    markers.mkdir(exist_ok=True)
    there = {} if begins else storage.sizes()
    uploads = [Upload(store, url, markers, key, (store / key).stat().st_size) for key in keys if key != COMMITTED]
    _run([upload for upload in uploads if not upload.key.startswith("uns/")], there, run)
    _run([upload for upload in uploads if upload.key.startswith("uns/")], there, run)
    _remove_stale(storage, keys)
    storage.write(COMMITTED, (store / COMMITTED).read_bytes())


def _run(uploads: Sequence[Upload], there: dict[str, int], run: Run) -> None:
    """Upload what is not there yet."""
    left = [upload for upload in uploads if not (upload.marker.is_file() and there.get(upload.key) == upload.size)]
    with watched(lambda: sum(upload.marker.is_file() for upload in uploads), "upload", len(uploads)):
        run(left)


def _remove_stale(storage: Storage, keys: Sequence[str]) -> None:
    storage.delete(sorted(set(storage.sizes()) - set(keys)))
