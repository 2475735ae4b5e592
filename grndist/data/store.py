"""The store: one expression matrix as a sharded Zarr (v3) that is also a valid AnnData on disk.

    X/data, X/indices   CSR values and columns (uint16, uint32 where needed; float32 for non-integer data),
                        chunks of 2^17 in shards of 2^25 elements, blosc-lz4 then crc32c
    X/indptr            int64, one chunk
    obs, var            cells (shuffled once at ingest; source_row undoes it) and genes, with totals and moments
    uns/grndist         format version, state of the values, digests and the manifest: every file, its bytes, its sha256

Zarr returns zeros for a missing shard, so `open_store` checks the manifest. This and `build`, which writes it, are the
only modules that know of chunks and shards. Cells are rows; genes keep the source's order.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from jaxtyping import Float, Int64
from scipy import sparse

from grndist.errors import UserError
from grndist.genes import GenePanel

State = Literal["counts", "log1p", "continuous"]

FORMAT_VERSION = 1
CHUNK = 2**17  # elements, 256 KiB of uint16
SHARD = 2**25
BLOCK = 1024  # cells that are read and shuffled together


class StoreError(UserError):
    """A store is missing, damaged, or not one that this version reads."""


@dataclass(frozen=True)
class Store:
    """An open store; `read_rows` is the only access to the matrix."""

    path: Path
    panel: GenePanel
    state: State
    digest: str
    median_total: float
    description: dict[str, Any]  # uns/grndist without the manifest
    indptr: Int64[np.ndarray, " cells_plus_1"]

    @property
    def n_cells(self) -> int:
        """Number of cells (rows)."""
        return len(self.indptr) - 1

    @property
    def n_genes(self) -> int:
        """Number of genes (columns)."""
        return len(self.panel)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The table of cells, in store order."""
        return read_elem(self._group["obs"])

    @cached_property
    def var(self) -> pd.DataFrame:
        """The table of genes, with `mean`, `variance`, `nnz` and, of counts, `log1p_mean`, `log1p_variance`."""
        return read_elem(self._group["var"])

    @cached_property
    def perturbed(self) -> Int64[np.ndarray, " cells"]:
        """Column of the gene perturbed in each cell; CONTROL or UNMAPPED where it is not one gene of the panel."""
        labels = self.obs["perturbation"].astype("category").cat
        columns = self.panel.perturbed_columns([str(label) for label in labels.categories])
        return columns[labels.codes.to_numpy()]

    @cached_property
    def totals(self) -> Float[np.ndarray, " cells"]:
        """Sum of each cell's values, in the stored state."""
        return self.obs["total_counts"].to_numpy(np.float64)

    def read_rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """The values of cells `start` to `stop`, as stored.

        Raises:
            StoreError: a chunk fails its checksum or cannot be decoded.
        """
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        data = self._read("data", first, last)
        indices = self._read("indices", first, last).astype(np.int32)
        return sparse.csr_matrix(
            (data, indices, self.indptr[start : stop + 1] - first), shape=(stop - start, self.n_genes)
        )

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """All cells in order, `size` at a time."""
        for start in range(0, self.n_cells, size):
            stop = min(start + size, self.n_cells)
            yield slice(start, stop), self.read_rows(start, stop)

    def summary(self) -> str:
        """One line: shape, density, state and digest."""
        density = self.indptr[-1] / (self.n_cells * self.n_genes)
        return (
            f"{self.n_cells} cells x {self.n_genes} genes, {self.state}, {100 * (1 - density):.1f} % zeros, "
            f"digest {self.digest[:12]}"
        )

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(self.path, mode="r")

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        return {name: self._group[f"X/{name}"] for name in ("data", "indices")}

    def _read(self, name: str, first: int, last: int) -> np.ndarray:
        try:
            return np.asarray(self._arrays[name][first:last])
        except (ValueError, RuntimeError, OSError) as error:
            shards = ", ".join(f"X/{name}/c/{shard}" for shard in range(first // SHARD, max(last - 1, 0) // SHARD + 1))
            raise StoreError(
                f"{self.path}: {shards} is damaged ({error}); restore the store from a copy or ingest it again"
            ) from error


def open_store(path: Path) -> Store:
    """Open a store and check that every file of its manifest is there, whole and no other than listed.

    Sizes are compared here; checksums are compared as chunks are read.

    Raises:
        StoreError: not a store, another format version, or a file missing, cut short or exchanged.
    """
    about = _about(path)
    version = int(about.get("format_version", 0))
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path}: store format version {version}, but this grndist reads version {FORMAT_VERSION}; "
            "ingest the source again, or use the grndist that wrote it"
        )
    manifest = about.pop("manifest")
    if digest_of(manifest) != about["digest"]:
        raise StoreError(f"{path}: the manifest does not match its own digest; ingest the source again")
    _check_files(path, manifest)
    group = zarr.open_group(path, mode="r")
    names = tuple(str(name) for name in read_elem(group["var"]).index)
    return Store(
        path=path,
        panel=GenePanel(names),
        state=about["state"],
        digest=str(about["digest"]),
        median_total=float(about["median_total"]),
        description=about,
        indptr=np.asarray(group["X/indptr"][:]),
    )


def _about(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise StoreError(f"{path}: no such store; make one with `grndist ingest SOURCE {path}`")
    if not is_store(path):
        raise StoreError(f"{path} is not a grndist store (it has no uns/grndist); make one with `grndist ingest`")
    try:
        return {
            name: value if isinstance(value, pd.DataFrame) else _plain(value)
            for name, value in read_elem(zarr.open_group(path, mode="r")["uns/grndist"]).items()
        }
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise StoreError(f"{path}: its uns/grndist cannot be read ({error}); ingest the source again") from error


def is_store(path: Path) -> bool:
    """Whether there is a whole store at `path`: its uns/grndist is written last."""
    return (path / "uns" / "grndist" / "zarr.json").is_file()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0 else value


def _check_files(path: Path, manifest: pd.DataFrame) -> None:
    for key, size in zip(manifest["key"], manifest["bytes"], strict=True):
        file = path / str(key)
        if not file.is_file():
            raise StoreError(f"{path}: {key} is missing; restore the store from a copy or ingest it again")
        if file.stat().st_size != int(size):
            raise StoreError(
                f"{path}: {key} has {file.stat().st_size} bytes where {int(size)} were written; "
                "restore the store from a copy or ingest it again"
            )


def digest_of(manifest: pd.DataFrame) -> str:
    """A digest of the whole data set: of every file's key and sha256, in order of the keys."""
    lines = sorted(f"{key} {sha}" for key, sha in zip(manifest["key"], manifest["sha256"], strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
