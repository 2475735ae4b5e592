"""The content of a file that may be compressed by gzip."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


@contextmanager
def content_of(file: Path) -> Iterator[tuple[BufferedReader, BufferedReader]]:
    """The content, and the file as it is on the disk, whose position tells how far one has read."""
    with file.open("rb") as raw:
        if file.suffix.lower() != ".gz":
            yield raw, raw
            return
        with gzip.GzipFile(fileobj=raw) as content:
            yield BufferedReader(content), raw
