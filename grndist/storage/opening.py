"""Open the folder at a path or URL; single files at URLs as files on this machine, for what writes or reads a path."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from grndist.errors import UserError
from grndist.files import refuse_existing
from grndist.storage.local import LocalFolder
from grndist.storage.place import Storage, StorageError, is_remote
from grndist.storage.remote import BUCKETS, FsspecFolder, ObjectFolder


def open_storage(where: str | Path) -> Storage:
    """The folder at `where`, which need not exist; nothing is read yet.

    Raises:
        StorageError: there is a password in the URL.
    """
    if not is_remote(where):
        return LocalFolder(str(where), Path(where).absolute())
    url = str(where).rstrip("/")
    parts = urlsplit(url)
    if parts.password is not None:
        raise StorageError(
            f"{parts.scheme}://...@{parts.hostname}: a password in a URL would be copied into files; leave it out, and "
            "put it where the library for this scheme looks for it (the environment, or a file of its own)"
        )
    if parts.scheme == "file":
        return LocalFolder(url, Path(unquote(parts.path)))
    through_obstore = parts.scheme in BUCKETS and find_spec("obstore") is not None
    return ObjectFolder(url) if through_obstore else FsspecFolder(url)


def refuse_taken(where: str | Path, overwrite: bool = False) -> None:
    """Raise unless the file `where` is free or may be overwritten; call it before long work.

    Raises:
        UserError: it exists; or, on this machine, its folder does not.
    """
    if not is_remote(where):
        refuse_existing(Path(where), overwrite)
        return
    folder, name = _split(where)
    if name in open_storage(folder).sizes() and not overwrite:
        raise UserError(f"{where} exists already; pass --overwrite to replace it, or choose another name")


@contextmanager
def delivered(where: str | Path) -> Iterator[Path]:
    """A path to write the file `where` to: itself or, of a URL, one that is uploaded when the block ends well."""
    if not is_remote(where):
        yield Path(where)
        return
    folder, name = _split(where)
    with tempfile.TemporaryDirectory(prefix="grndist-") as aside:
        path = Path(aside, name)
        yield path
        open_storage(folder).write(name, path.read_bytes())


@contextmanager
def fetched(where: str | Path) -> Iterator[Path]:
    """A path to read the file `where` from: itself or, of a URL, a copy that lasts as long as the block.

    Raises:
        StorageError: there is no file at the URL.
    """
    if not is_remote(where):
        yield Path(where)
        return
    folder, name = _split(where)
    with tempfile.TemporaryDirectory(prefix="grndist-") as aside:
        path = Path(aside, name)
        try:
            path.write_bytes(open_storage(folder).read(name))
        except FileNotFoundError:
            raise StorageError(f"{where}: no such file; check the URL") from None
        yield path


def _split(where: str | Path) -> tuple[str, str]:
    folder, _, name = str(where).rstrip("/").rpartition("/")
    return folder, name
