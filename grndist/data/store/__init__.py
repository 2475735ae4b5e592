"""The store: its format on disk, opening it, reading ranges of its shards, verifying it. What makes one is `ingest`."""

from grndist.data.store.manifest import (
    COMMITTED,
    FORMAT_VERSION,
    REMEDY,
    digest_of,
    is_store,
    manifest_of,
    seal_of,
    size_problem,
)
from grndist.data.store.open import (
    BLOCK,
    CHUNK,
    CODECS,
    ROWS_PER_CHUNK,
    SHARD,
    Profile,
    State,
    Store,
    open_store,
    perturbed_columns,
)
from grndist.data.store.shards import StoreError

__all__ = [
    "BLOCK",
    "CHUNK",
    "CODECS",
    "COMMITTED",
    "FORMAT_VERSION",
    "REMEDY",
    "ROWS_PER_CHUNK",
    "SHARD",
    "Profile",
    "State",
    "Store",
    "StoreError",
    "digest_of",
    "is_store",
    "manifest_of",
    "open_store",
    "perturbed_columns",
    "seal_of",
    "size_problem",
]
