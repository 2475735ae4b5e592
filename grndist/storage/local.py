"""A folder on this machine: preads and files written aside. No mmap, whose pages count as memory of ours."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from grndist.files import WriteError, written_aside
from grndist.storage.place import Content, StorageError, joined, whole


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine; its absolute path holds whatever the working directory of a process."""

    url: str
    root: Path = field(repr=False)

    def read(self, key: str) -> bytes:
        """See `Storage`."""
        with self._errors(key):
            return (self.root / key).read_bytes()

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """See `Storage`; the file is opened anew each time, so that one that was deleted is noticed."""
        with self._errors(key):
            descriptor = os.open(self.root / key, os.O_RDONLY)
            try:
                found = [_pread(descriptor, start, length) for start, length in zip(starts, lengths, strict=True)]
            finally:
                os.close(descriptor)
        return whole(self.url, key, starts, lengths, found)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`; a file that goes away meanwhile, or a link that leads nowhere, is not there."""
        found = {}
        with self._errors(prefix):
            for folder, _, names in os.walk(self.root / prefix, onerror=_raise_unless_missing):
                for path in (Path(folder, name) for name in names if not _in_the_making(name)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def write(self, key: str, content: Content) -> None:
        """See `Storage`; makes the folders on the way."""
        path = self.root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(path, error.strerror or str(error)) from error
        with written_aside(path, overwrite=True) as aside:
            aside.write_bytes(content)

    def delete(self, keys: Iterable[str]) -> None:
        """See `Storage`; folders stay, since another process may be about to write into them."""
        for key in keys:
            with self._errors(key):
                (self.root / key).unlink(missing_ok=True)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        place = joined(self.url, key)
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(f"{place}: no such file") from None
        except PermissionError as error:
            raise StorageError(
                f"{place}: access was refused ({error.strerror}); check the permissions of the file and its folders"
            ) from error


def _pread(descriptor: int, start: int, length: int) -> bytes:
    """Up to `length` bytes; one call returns 2 GiB at most."""
    content = os.pread(descriptor, length, start)
    while 0 < len(content) < length and (more := os.pread(descriptor, length - len(content), start + len(content))):
        content += more
    return content


def _in_the_making(name: str) -> bool:
    return name.startswith(".") and ".tmp-" in name  # as `files.written_aside` names them


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
