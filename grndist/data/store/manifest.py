"""What a store says of itself, and every small file of it: read whole, and checked against the manifest.

Zarr returns zeros for a missing shard and trusts any that is there, so nothing is read but what the manifest lists.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from zarr.buffer.cpu import Buffer
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from grndist.data.sources.source import BROKEN
from grndist.data.store.shards import StoreError
from grndist.storage import Storage, open_storage

FORMAT_VERSION = 1
ABOUT = "uns/grndist"
COMMITTED = f"{ABOUT}/zarr.json"  # written last: a store without it is not finished
REMEDY = "restore the store from a copy or ingest it again"


def manifest_of(where: str | Path) -> tuple[Storage, dict[str, int], pd.DataFrame]:
    """A store's manifest and the sizes of the files that are really there, which may differ.

    Raises:
        StoreError: not a store, not finished, another format version, or the manifest itself is damaged.
    """
    storage, sizes, _, manifest = described(where)
    return storage, sizes, manifest


def size_problem(key: str, size: int, sizes: dict[str, int]) -> str | None:
    """What is wrong with a file of the manifest, judged by its size alone."""
    if key not in sizes:
        return f"{key} is missing"
    return None if sizes[key] == size else f"{key} has {sizes[key]} bytes where {size} were written"


def described(where: str | Path) -> tuple[Storage, dict[str, int], dict[str, Any], pd.DataFrame]:
    """Storage, sizes of its files, uns/grndist without the manifest, and the manifest."""
    storage = open_storage(where)
    sizes = storage.sizes()
    if COMMITTED not in sizes:
        raise StoreError(_no_store(storage.url, sizes))
    about = _read_about(storage, sizes)
    version = int(about.get("format_version", 0))
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{storage.url}: store format version {version}, but this grndist reads version {FORMAT_VERSION}; "
            "ingest the source again, or use the grndist that wrote it"
        )
    if "seal" not in about:
        raise StoreError(f"{storage.url}: written by an early version of grndist; ingest the source again")
    manifest = about.pop("manifest", None)
    whole = isinstance(manifest, pd.DataFrame) and {"key", "bytes", "sha256", "index"} <= set(manifest.columns)
    if not whole or digest_of(manifest) != about.get("digest"):
        raise StoreError(f"{storage.url}: the manifest does not match its own digest; {REMEDY}")
    if seal_of(about) != about.get("seal"):
        raise StoreError(f"{storage.url}: {ABOUT} does not match its own seal; {REMEDY}")
    return storage, sizes, about, manifest


def _no_store(url: str, sizes: dict[str, int]) -> str:
    if Path(url).is_file():
        return f"{url} is a file, not a store; make a store of it with `grndist ingest {url} NAME.zarr`"
    if not sizes and _ingest_of(url).is_dir():
        return f"{url}: its ingest was begun and not finished; run the same `grndist ingest` again, and it goes on"
    if not sizes:
        return f"{url}: no such store; make one with `grndist ingest SOURCE {url}`"
    if any(key.startswith(("X/", "obs/")) for key in sizes):
        return (
            f"{url} has no {COMMITTED}: an AnnData, or an unfinished ingest; make a store of it with `grndist ingest`"
        )
    return f"{url} is not a grndist store (it has no {ABOUT}); make one with `grndist ingest`"


def _ingest_of(url: str) -> Path:
    """Where an ingest into a store on this machine works."""
    place = Path(url).absolute()
    return place.parent / f".{place.name}.ingest"


def is_store(where: str | Path) -> bool:
    """Whether there is a whole store: its uns/grndist is written last."""
    return COMMITTED in open_storage(where).sizes(ABOUT)


def _read_about(storage: Storage, sizes: dict[str, int]) -> dict[str, Any]:
    keys = [key for key in sizes if key.startswith(f"{ABOUT}/")]
    try:
        with catch_warnings():
            simplefilter("ignore", ZarrUserWarning)  # of damaged metadata; the seal finds that something is missing
            table = _in_memory(dict(zip(keys, _read_all(storage, keys), strict=True)), ABOUT)
        return {name: value if isinstance(value, pd.DataFrame) else _plain(value) for name, value in table.items()}
    except (*BROKEN, AttributeError, RuntimeError) as error:
        raise StoreError(f"{storage.url}: its {ABOUT} is damaged ({error}); {REMEDY}") from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0 else value


def read_part(storage: Storage, manifest: pd.DataFrame, name: str) -> Any:
    """Read a part of the AnnData, every file of it checked against the manifest."""
    keys = [key for key in manifest["key"] if key.startswith(f"{name}/")]
    return _in_memory(read_files(storage, manifest, keys), name)


def read_files(storage: Storage, manifest: pd.DataFrame, keys: list[str]) -> dict[str, bytes]:
    """Small files, by key."""
    wanted = dict(zip(manifest["key"], manifest["sha256"], strict=True))
    try:
        files = dict(zip(keys, _read_all(storage, keys), strict=True))
    except FileNotFoundError as error:
        raise StoreError(f"{storage.url}: a file is missing ({error}): was the store deleted? {REMEDY}") from None
    for key, content in files.items():
        if hashlib.sha256(content).hexdigest() != wanted[key]:
            raise StoreError(f"{storage.url}: {key} is damaged (it is not what was written); {REMEDY}")
    return files


def _read_all(storage: Storage, keys: Sequence[str]) -> list[bytes]:
    with ThreadPoolExecutor(8) as pool:  # for stores at a URL, where each file is a round trip
        return list(pool.map(storage.read, keys))


def _in_memory(files: dict[str, bytes], name: str) -> Any:
    group = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode()
    memory = MemoryStore({key: Buffer.from_bytes(content) for key, content in {"zarr.json": group, **files}.items()})
    return read_elem(zarr.open_group(memory, mode="r")[name])


def digest_of(manifest: pd.DataFrame) -> str:
    """A digest of the whole data set: of the manifest's lines, in order of the keys."""
    columns = [manifest[name].astype(str) for name in ("key", "bytes", "sha256", "index")]
    lines = sorted(" ".join(line) for line in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def seal_of(about: dict[str, Any]) -> str:
    """A digest of what uns/grndist says beside the manifest, whose own digest is part of it."""
    fields = {key: value for key, value in about.items() if key not in ("seal", "manifest")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
