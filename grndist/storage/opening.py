"""Open the folder at a path or URL; single files at URLs as files on this machine, for what writes or reads a path."""

import re
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
        StorageError: there is a user name, password, query or fragment in the URL.
    """
    if not is_remote(where):
        return LocalFolder(str(where), Path(where).absolute())
    url = str(where).rstrip("/")
    _refuse_secrets(url)
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        return LocalFolder(url, Path(unquote(urlsplit(url).path) or "/"))
    through_obstore = scheme in BUCKETS and find_spec("obstore") is not None
    return ObjectFolder(url) if through_obstore else FsspecFolder(url)


def refuse_taken(where: str | Path, overwrite: bool = False) -> None:
    """Raise unless the file `where` is free or may be overwritten; call it before long work.

    At a URL one byte of the file is asked for, even to overwrite it, so that a place that cannot be used is noticed.

    Raises:
        UserError: it exists; or, on this machine, its folder does not.
        StorageError: the place cannot be used.
    """
    if not is_remote(where):
        refuse_existing(Path(where), overwrite)
        return
    if _is_there(*_located(where)) and not overwrite:
        raise UserError(f"{where} exists already; pass --overwrite to replace it, or choose another name")


@contextmanager
def delivered(where: str | Path) -> Iterator[Path]:
    """A path to write the file `where` to: itself or, of a URL, one that is uploaded when the block ends well."""
    if not is_remote(where):
        yield Path(where)
        return
    with _copy_of(where) as (folder, path):
        yield path
        folder.write(path.name, path.read_bytes())


@contextmanager
def fetched(where: str | Path) -> Iterator[Path]:
    """A path to read the file `where` from: itself or, of a URL, a copy that lasts as long as the block.

    Raises:
        StorageError: there is no file at the URL.
    """
    if not is_remote(where):
        yield Path(where)
        return
    with _copy_of(where) as (folder, path):
        try:
            path.write_bytes(folder.read(path.name))
        except FileNotFoundError:
            raise StorageError(f"{where}: no such file; check the URL") from None
        yield path


@contextmanager
def _copy_of(where: str | Path) -> Iterator[tuple[Storage, Path]]:
    """The folder of a file at a URL, and a path of the same name for its copy, which lasts as long as the block."""
    folder, name = _located(where)
    with tempfile.TemporaryDirectory(prefix="grndist-") as aside:
        yield folder, Path(aside, name)


def _located(where: str | Path) -> tuple[Storage, str]:
    """The folder and the name of a file at a URL."""
    url = str(where).rstrip("/")
    _refuse_secrets(url)
    folder, _, name = url.rpartition("/")
    if not is_remote(folder):
        raise StorageError(f"{where}: there is no file name after the bucket or host; give scheme://BUCKET/NAME")
    return open_storage(folder), name


def _is_there(storage: Storage, key: str) -> bool:
    """Whether there is a file, empty or not. HEAD would not tell a missing bucket from a missing file; reading does."""
    try:
        storage.read_ranges(key, [0], [1])
    except FileNotFoundError:
        return False
    except EOFError:
        return True
    return True


def _refuse_secrets(url: str) -> None:
    """Raise if a URL has what may be a password or a token, without repeating it: URLs go into files and messages."""
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0]
    user, at, _ = authority.rpartition("@")
    is_container = scheme.lower() in ("abfs", "abfss") and ":" not in user  # CONTAINER@ACCOUNT
    with_slash = "@" in rest and re.match(r"[^\[]*:(?!\d*$)", authority)  # a password with an unquoted slash
    if (at and not is_container) or with_slash:
        shown, what = f"{scheme}://...", "a user name, password or token"
    elif query := re.search(r"[?#].*", url):
        shown, what = f"{url[: query.start() + 1]}...", "a query or fragment, which may hold a token,"
    else:
        return
    raise StorageError(
        f"{shown}: {what} in a URL would be copied into files; leave it out, and put credentials "
        "where the library for this scheme looks for them (the environment, or a file of its own)"
    )
