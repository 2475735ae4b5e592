"""What a folder of files by key can do, and the names of places."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from grndist.errors import UserError

Content = bytes | bytearray | memoryview


class StorageError(UserError):
    """A place cannot be used: no such bucket, no permission, unreachable, or no library for its scheme."""


@runtime_checkable
class Storage(Protocol):
    """Files by key; keys have slashes and no leading one. Picklable, safe from threads and other processes."""

    @property
    def url(self) -> str:
        """The place, as a user would write it."""

    def read(self, key: str) -> bytes:
        """A whole file; FileNotFoundError if there is none."""

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """Ranges of one file, each exactly as long as asked; EOFError where the file ends before."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of every file below the folder `prefix`, by key, ascending; files in the making left out."""

    def write(self, key: str, content: Content) -> None:
        """Put a file there, whole or not at all, in place of one that is there."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files; those that are not there are fine."""


def is_remote(where: str | Path) -> bool:
    """Whether this is a URL (`s3://...`), not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(where)) is not None


def joined(where: str | Path, *names: str) -> str:
    """The path or URL `where` with names appended."""
    if not is_remote(where):
        return str(Path(where, *names))
    return "/".join([str(where).rstrip("/"), *(name.strip("/") for name in names)])


def absolute(where: str | Path) -> str:
    """A path made absolute; a URL as it is."""
    return str(where).rstrip("/") if is_remote(where) else str(Path(where).absolute())


def whole(url: str, key: str, starts: Sequence[int], lengths: Sequence[int], found: Sequence[bytes]) -> list[bytes]:
    """What was found, if it is all that was asked for.

    Raises:
        EOFError: the file ends before one of the ranges does.
    """
    for start, length, content in zip(starts, lengths, found, strict=True):
        if len(content) != length:
            raise EOFError(f"{joined(url, key)} ends before byte {start + length}")
    return list(found)
