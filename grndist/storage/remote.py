"""A folder at a URL, through obstore or fsspec. Both are imported only where they are used.

What does not answer is given up after about half a minute, with one message; a file that is missing is not an error of
the place.
"""

import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from grndist.storage.place import Content, StorageError, joined, whole
from grndist.storage.refusals import is_no_bucket, refusal, status

BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")  # schemes of object stores
CONNECT_SECONDS, ANSWER_SECONDS = 5, 25
RETRIES, RETRY_SECONDS = 3, 20
GAP = 2**20  # bytes between two ranges that are read rather than asked for apart
UPLOADS = 4  # parts of 5 MiB at once, each to be through within ANSWER_SECONDS


@dataclass(frozen=True)
class ObjectFolder:
    """A prefix of a bucket, through obstore."""

    url: str

    @cached_property
    def _store(self) -> Any:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        client: Any = {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=ANSWER_SECONDS),  # until the first bytes, and from some to the next
            "timeout": timedelta(hours=1),  # of a whole file, however large
            "allow_http": _endpoint().startswith("http://"),
        }
        retry: Any = {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        }
        try:
            return from_url(self.url, client_options=client, retry_config=retry, **_credentials(self.url))
        except (BaseError, ValueError) as error:
            raise refusal(self.url, error) from None

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return ObjectFolder, (self.url,)

    def read(self, key: str) -> bytes:
        """See `Storage`."""
        with self._errors(key):
            return self._store.get(key).bytes().to_bytes()

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """See `Storage`; ranges that lie close together are one request."""
        begins, ends = _requests(starts, lengths)
        with self._errors(key):
            parts = self._store.get_ranges(key, starts=begins, ends=ends, coalesce=0)
        found = []
        for start, length in zip(starts, lengths, strict=True):
            number = bisect_right(begins, start) - 1
            at = start - begins[number] if length else 0
            found.append(memoryview(parts[number])[at : at + length].tobytes() if length else b"")
        return whole(self.url, key, starts, lengths, found)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`."""
        with self._errors(prefix):
            chunks = self._store.list(prefix or None, chunk_size=1000)
            return dict(sorted((file["path"], file["size"]) for chunk in chunks for file in chunk))

    def write(self, key: str, content: Content) -> None:
        """See `Storage`."""
        with self._errors(key):
            self._store.put(key, content, max_concurrency=UPLOADS)

    def delete(self, keys: Iterable[str]) -> None:
        """See `Storage`."""
        for key in keys:
            with suppress(FileNotFoundError), self._errors(key):
                self._store.delete(key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise refusal(self.url, error) from None
            raise FileNotFoundError(f"{joined(self.url, key)}: no such file") from None
        except (BaseError, OSError) as error:
            if status(error) == 416:
                raise EOFError(f"{joined(self.url, key)} ends before what was asked of it begins") from None
            raise refusal(self.url, error) from None


def _requests(starts: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where the requests for these ranges begin, ascending, and end; obstore's own merging panics on short files."""
    begins: list[int] = []
    ends: list[int] = []
    for start, length in sorted(zip(starts, lengths, strict=True)):
        if not length:
            continue
        if begins and start <= ends[-1] + GAP:
            ends[-1] = max(ends[-1], start + length)
        else:
            begins.append(start)
            ends.append(start + length)
    return begins, ends


def _endpoint() -> str:
    """The S3 server of one's own that the environment names, else empty."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _credentials(url: str) -> dict[str, Any]:
    """What obstore is to ask for S3 credentials: profiles and the like, which it does not know itself.

    Raises:
        ValueError: there are none.
    """
    known = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE")
    if not url.startswith("s3") or any(os.environ.get(name) for name in known) or find_spec("boto3") is None:
        return {}
    from obstore.auth.boto3 import Boto3CredentialProvider

    return {"credential_provider": Boto3CredentialProvider()}


@dataclass(frozen=True)
class FsspecFolder:
    """A folder at any URL that fsspec knows. Whether a file appears whole is up to the library behind it."""

    url: str

    @cached_property
    def _system(self) -> tuple[Any, str]:
        """The file system, and the folder's name in it."""
        from fsspec.core import url_to_fs

        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if self._scheme in ("s3", "s3a"):
            limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": ANSWER_SECONDS / 2}
            options["config_kwargs"] = limits | {"retries": {"max_attempts": 0}}
        try:
            system, root = url_to_fs(self.url, **options)
        except ImportError as error:
            raise StorageError(
                f"{self.url}: the library for {self._scheme}:// is missing ({error}); install it"
            ) from None
        except ValueError as error:
            raise StorageError(
                f"{self.url}: {self._scheme}:// is no scheme that can be read or written ({error}); use s3://, gs://, "
                "az:// or another that fsspec knows"
            ) from None
        if hasattr(system, "retries"):  # s3fs; five times, if nothing is said
            system.retries = 2
        return system, root

    @property
    def _scheme(self) -> str:
        return urlsplit(self.url).scheme

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return FsspecFolder, (self.url,)

    def read(self, key: str) -> bytes:
        """See `Storage`."""
        with self._at(key) as (system, path):
            return system.cat_file(path)

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """See `Storage`."""
        asked = [number for number, length in enumerate(lengths) if length]  # an empty one can mean the whole file
        begins, ends = [starts[n] for n in asked], [starts[n] + lengths[n] for n in asked]
        found = [b""] * len(lengths)
        with self._at(key) as (system, path):
            parts = system.cat_ranges([path] * len(asked), begins, ends, on_error="raise")
        for number, part in zip(asked, parts, strict=True):
            found[number] = bytes(part)
        return whole(self.url, key, starts, lengths, found)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Storage`."""
        with suppress(FileNotFoundError), self._at(prefix) as (system, path):
            root = self._system[1].rstrip("/") + "/"
            found = system.find(path.rstrip("/"), detail=True)
            below = path.rstrip("/") + "/"
            return dict(sorted((n.removeprefix(root), f["size"]) for n, f in found.items() if n.startswith(below)))
        return {}

    def write(self, key: str, content: Content) -> None:
        """See `Storage`."""
        with self._at(key) as (system, path):
            if self._scheme not in BUCKETS:  # there it would make the bucket
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, bytes(content))

    def delete(self, keys: Iterable[str]) -> None:
        """See `Storage`."""
        for key in keys:
            with suppress(FileNotFoundError), self._at(key) as (system, path):
                system.rm_file(path)

    @contextmanager
    def _at(self, key: str) -> Iterator[tuple[Any, str]]:
        system, root = self._system
        try:
            yield system, f"{root.rstrip('/')}/{key}"
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise refusal(self.url, error) from None
            raise FileNotFoundError(f"{joined(self.url, key)}: no such file") from None
        except _library_errors() as error:
            if isinstance(error, OSError) and error.errno == errno.EINVAL:
                raise EOFError(f"{joined(self.url, key)} ends before what was asked of it begins") from None
            raise refusal(self.url, error) from None


def _library_errors() -> tuple[type[Exception], ...]:
    """What the libraries behind fsspec raise."""
    found: list[type[Exception]] = [OSError]
    if find_spec("botocore") is not None:
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError]
    if find_spec("aiohttp") is not None:
        from aiohttp import ClientError as HttpError

        found.append(HttpError)
    return tuple(found)
