"""The store: one expression matrix as a sharded Zarr (v3) that is also a valid AnnData, on disk or at a URL.

    X/data, X/indices   CSR values and columns (uint16, uint32 where needed; float32 for non-integer data),
                        chunks of 2^17 in shards of 2^25 elements, blosc-lz4 then crc32c       (profile "train")
    X/indptr            int64, one chunk
    X                   or dense, chunks of 256 cells, bitshuffle and zstd, then crc32c        (profile "archive")
    obs, var            cells (shuffled once at ingest; source_row undoes it) and genes, with totals and moments
    uns/grndist         format version, state of the values, digests and the manifest: every file, its bytes, its sha256

Zarr returns zeros for a missing shard and trusts any that is there, so nothing is read but what the manifest lists:
sizes are compared when a store is opened, small files by their sha256 and shards by their checksums when they are read.
Cells are rows; genes keep the source's order.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, no_type_check

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, Shaped
from numba import njit
from scipy import sparse

from grndist.data.store.manifest import REMEDY, described, read_files, read_part, size_problem
from grndist.data.store.shards import Codec, Shard, ShardedArray, StoreError
from grndist.genes import GenePanel
from grndist.storage import Storage

State = Literal["counts", "log1p", "continuous"]
Profile = Literal["train", "archive"]

CHUNK = 2**17  # elements, 256 KiB of uint16
SHARD = 2**25
ROWS_PER_CHUNK = 256  # of a dense matrix
BLOCK = 1024  # cells that are read at once
CODECS: dict[Profile, Codec] = {"train": Codec("lz4", 3, "shuffle"), "archive": Codec("zstd", 1, "bitshuffle")}


@dataclass(frozen=True)
class Store:
    """An open store; `read_rows` and `read_cells` are the only access to the matrix."""

    storage: Storage
    panel: GenePanel
    state: State
    profile: Profile
    digest: str
    n_cells: int
    median_total: float
    description: dict[str, Any]  # uns/grndist without the manifest
    manifest: pd.DataFrame  # key, bytes, sha256 and, of shards, the checksum of their index

    @property
    def url(self) -> str:
        """Where it is."""
        return self.storage.url

    @property
    def n_genes(self) -> int:
        """Number of genes (columns)."""
        return len(self.panel)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The table of cells, in store order."""
        return read_part(self.storage, self.manifest, "obs")

    @cached_property
    def var(self) -> pd.DataFrame:
        """The table of genes, with `mean`, `variance`, `nnz` and, of counts, `log1p_mean`, `log1p_variance`."""
        return read_part(self.storage, self.manifest, "var")

    @cached_property
    def indptr(self) -> Int64[np.ndarray, " cells_plus_1"]:
        """Where each cell's non-zero values begin among all of them, and where the last one's end."""
        if self.profile == "archive":
            return np.cumsum([0, *self.obs["n_genes"]], dtype=np.int64)
        return np.asarray(read_part(self.storage, self.manifest, "X/indptr"))

    @cached_property
    def perturbed(self) -> Int64[np.ndarray, " cells"]:
        """Column of the gene perturbed in each cell; CONTROL or UNMAPPED where it is not one gene of the panel."""
        return perturbed_columns(self.obs, self.panel)

    @cached_property
    def totals(self) -> Float[np.ndarray, " cells"]:
        """Sum of each cell's values, in the stored state."""
        return self.obs["total_counts"].to_numpy(np.float64)

    @property
    def bytes_per_cell(self) -> float:
        """Memory that a cell's non-zero values and their columns take, on average."""
        return float(self.indptr[-1]) / max(self.n_cells, 1) * sum(dtype.itemsize for dtype in self.dtypes)

    @property
    def density(self) -> float:
        """Share of values that are not zero."""
        return float(self.indptr[-1]) / (self.n_cells * self.n_genes)

    def read_rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """The values of cells `start` to `stop`, as stored.

        Raises:
            StoreError: a shard is missing, another's, or fails a checksum.
        """
        return self.read_cells(np.arange(start, stop))

    def read_cells(self, rows: Int64[np.ndarray, " rows"]) -> sparse.csr_matrix:
        """The values of some cells, given by their ascending rows; only the chunks they lie in are read.

        Raises:
            StoreError: see `read_rows`.
        """
        indptr = self.lengths(rows)
        data, indices = (np.empty(indptr[-1], dtype=dtype) for dtype in self.dtypes)
        self.read_into(rows, data, indices)
        return sparse.csr_matrix((data, indices.astype(np.int32), indptr), shape=(len(rows), self.n_genes))

    def lengths(self, rows: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows_plus_1"]:
        """The indptr of a matrix of these rows."""
        return np.concatenate([[0], np.cumsum(self.indptr[rows + 1] - self.indptr[rows])])

    @property
    def dtypes(self) -> tuple[np.dtype, np.dtype]:
        """Types of the values and of their columns, as `read_into` writes them."""
        if self.profile == "archive":
            return self._arrays["X"].dtype, np.dtype(np.uint16 if self.n_genes <= 2**16 else np.uint32)
        return self._arrays["X/data"].dtype, self._arrays["X/indices"].dtype

    def read_into(
        self,
        rows: Int64[np.ndarray, " rows"],
        data: Shaped[np.ndarray, " values"],
        indices: Shaped[np.ndarray, " values"],
    ) -> None:
        """Write values and columns of ascending rows into `data` and `indices`, one row after the other.

        Raises:
            StoreError: see `read_rows`.
        """
        if self.profile == "archive":
            self._read_dense(rows, data, indices)
            return
        first, last = _runs(rows)
        starts, stops = self.indptr[first], self.indptr[last]
        self._arrays["X/data"].read(starts, stops, data)
        self._arrays["X/indices"].read(starts, stops, indices)

    def _read_dense(self, rows: np.ndarray, data: np.ndarray, indices: np.ndarray) -> None:
        array, written = self._arrays["X"], 0
        for at in range(0, len(rows), BLOCK):
            part = rows[at : at + BLOCK]
            dense = np.empty((len(part), self.n_genes), dtype=array.dtype)
            first, last = _runs(part)
            array.read(first * self.n_genes, last * self.n_genes, dense.reshape(-1))
            written += _compress(dense, data[written:], indices[written:])

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """All cells in order, `size` at a time."""
        for start in range(0, self.n_cells, size):
            stop = min(start + size, self.n_cells)
            yield slice(start, stop), self.read_rows(start, stop)

    def summary(self) -> str:
        """One line: shape, zeros, state and digest."""
        return (
            f"{self.n_cells:,} cells x {self.n_genes:,} genes, {self.state}, {100 * (1 - self.density):.1f} % zeros, "
            f"digest {self.digest[:12]}"
        )

    @cached_property
    def _arrays(self) -> dict[str, ShardedArray]:
        names = ["X"] if self.profile == "archive" else ["X/data", "X/indices"]
        return {name: _sharded(self.storage, self.manifest, name) for name in names}


def open_store(where: str | Path) -> Store:
    """Open a store and check that every file of its manifest is there and as large as listed.

    Raises:
        StoreError: not a store, not finished, another format version, or a file missing or cut short.
        StorageError: it is at a URL that cannot be read.
    """
    storage, sizes, about, manifest = described(where)
    for key, size in zip(manifest["key"], manifest["bytes"], strict=True):
        problem = size_problem(key, int(size), sizes)
        if problem is not None:
            raise StoreError(f"{storage.url}: {problem}; {REMEDY}")
    var = read_part(storage, manifest, "var")
    return Store(
        storage=storage,
        panel=GenePanel(tuple(str(name) for name in var.index)),
        state=about["state"],
        profile=about["profile"],
        digest=str(about["digest"]),
        n_cells=int(about["n_cells"]),
        median_total=float(about["median_total"]),
        description=about,
        manifest=manifest,
    )


def perturbed_columns(obs: pd.DataFrame, panel: GenePanel) -> Int64[np.ndarray, " cells"]:
    """Column in `panel` of the gene perturbed in each cell; CONTROL or UNMAPPED where it is not one of its genes."""
    labels = obs["perturbation"].astype("category").cat
    columns = panel.perturbed_columns([str(label) for label in labels.categories])
    return columns[labels.codes.to_numpy()]


def _sharded(storage: Storage, manifest: pd.DataFrame, name: str) -> ShardedArray:
    key = f"{name}/zarr.json"
    about = json.loads(read_files(storage, manifest, [key])[key])
    try:
        (sharding,) = about["codecs"]
        chunks, shards = sharding["configuration"]["chunk_shape"], about["chunk_grid"]["configuration"]["chunk_shape"]
        known = [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "blosc", "crc32c"]
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise StoreError(f"{storage.url}: {name} is not encoded as a grndist store is; {REMEDY}")
    listed = manifest.set_index("key")
    per_array = -(-about["shape"][0] // shards[0])
    keys = [f"{name}/c/{number}{'/0' * (len(shards) - 1)}" for number in range(per_array)]
    files = listed.loc[keys]
    return ShardedArray(
        storage=storage,
        shards=tuple(map(Shard, keys, files["bytes"].astype(int).tolist(), files["index"].astype(str))),
        dtype=np.dtype(about["data_type"]),
        n_elements=int(np.prod(about["shape"])),
        chunk=int(np.prod(chunks)),
        shard=int(np.prod(shards)),
    )


def _runs(rows: Int64[np.ndarray, " rows"]) -> tuple[Int64[np.ndarray, " runs"], Int64[np.ndarray, " runs"]]:
    """First row and the row after the last of every run of consecutive rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    bounds = np.concatenate([[0], breaks, [len(rows)]]) if len(rows) else np.array([0])
    return rows[bounds[:-1]], rows[bounds[1:] - 1] + 1


@njit(nogil=True, cache=True)
@no_type_check
def _compress(dense, data, indices):
    """Write the non-zero values of a dense [rows, genes] and their columns, row after row; return how many."""
    at = 0
    for row in range(dense.shape[0]):
        for column in range(dense.shape[1]):
            if dense[row, column] != 0:
                data[at] = dense[row, column]
                indices[at] = column
                at += 1
    return at
