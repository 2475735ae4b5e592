"""Finishing a store whose shards are written: tables of cells and genes, metadata, and the manifest at the very end."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from jaxtyping import Bool, Float, Int64
from zarr.buffer.cpu import Buffer
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from grndist.data.ingest.assemble import (
    COUNT,
    LARGEST,
    LOG_SQUARE,
    LOG_TOTAL,
    SMALLEST,
    SQUARE,
    TOTAL,
    Work,
    shard_files,
)
from grndist.data.ingest.columns import with_columns
from grndist.data.selection.split import FRACTIONS, split_cells
from grndist.data.store import BLOCK, CODECS, FORMAT_VERSION, Profile, State, digest_of, seal_of
from grndist.data.store.shards import array_metadata
from grndist.genes import NON_TARGETING

ENCODING = {"encoding-version": "0.1.0"}


@dataclass(frozen=True)
class Contents:
    """What a store says beside its matrix."""

    obs: pd.DataFrame  # one row a cell, in the order of the source, with `perturbation`
    var: pd.DataFrame
    source: dict[str, str]  # where the data come from
    shuffle_seed: int = 0
    profile: Profile = "train"
    fractions: tuple[float, float, float] = FRACTIONS
    split_seed: int = 0


@dataclass(frozen=True)
class Built:
    """A store that is complete but not yet in its place."""

    state: State
    digest: str
    n_values: int
    median_total: float
    n_silent: int  # cells without values
    seen: Bool[np.ndarray, " genes"]
    constant: Bool[np.ndarray, " genes"]  # seen, and the same in every cell
    bytes: int
    columns: tuple[str, ...]  # of the cells and of the genes
    manifest: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class Cells:
    """What is known of the cells after the first pass, in the order of the store."""

    indptr: Int64[np.ndarray, " cells_plus_1"]
    totals: Float[np.ndarray, " cells"]
    median_total: float


def finish(
    work: Work,
    cells: Cells,
    moments: Float[np.ndarray, "genes 8"],
    contents: Contents,
    state: State,
    order: Int64[np.ndarray, " cells"],
) -> Built:
    """Write everything beside the shards, the manifest last."""
    _remove_all_but_shards(work)
    lengths, n_cells = np.diff(cells.indptr), work.target.n_cells
    obs = _described_cells(contents, cells, order)
    var = _described_genes(contents.var, moments, n_cells, state)
    manifest = _manifest(work, _encoded({"obs": obs, "var": var}) | _matrix_files(work, cells.indptr))
    about = {
        "format_version": FORMAT_VERSION,
        "profile": contents.profile,
        "state": state,
        "shuffle_seed": contents.shuffle_seed,
        "block": BLOCK,
        "n_cells": n_cells,
        "n_genes": work.target.n_genes,
        "median_total": cells.median_total,
        "source": json.dumps(contents.source, sort_keys=True),
        "source_digest": contents.source.get("sha256", ""),
        "digest": digest_of(manifest),
    }
    about["seal"] = seal_of(about)
    uns = _encoded({"uns": {"grndist": {**about, "manifest": manifest}}})
    _write_files(work.store, {key: content for key, content in uns.items() if key.startswith("uns/")})
    seen = moments[:, COUNT] > 0
    return Built(
        state=state,
        digest=str(about["digest"]),
        n_values=work.target.n_values,
        median_total=cells.median_total,
        n_silent=int((lengths == 0).sum()),
        seen=seen,
        constant=_constant(moments, n_cells) & seen,
        bytes=int(manifest["bytes"].sum()),
        columns=(*obs.columns, *var.columns),
        manifest=manifest,
    )


def _remove_all_but_shards(work: Work) -> None:
    """What an attempt that was killed has left half-written."""
    known = set(shard_files(work)["key"])
    for file in [file for file in work.store.rglob("*") if file.is_file()]:
        if file.relative_to(work.store).as_posix() not in known:
            file.unlink()


def _described_cells(contents: Contents, cells: Cells, order: Int64[np.ndarray, " cells"]) -> pd.DataFrame:
    """The table of cells in the order of the store, with totals, control flag and split."""
    table = _writable(contents.obs.iloc[order])
    labels = pd.Categorical(contents.obs["perturbation"].iloc[order].astype(str).to_numpy())
    columns = {
        "perturbation": labels,
        "is_control": np.asarray(labels == NON_TARGETING),
        "split": split_cells(table.index, pd.Series(labels), contents.fractions, contents.split_seed),
        "total_counts": cells.totals,
        "n_genes": np.diff(cells.indptr).astype(np.int32),
        "source_row": order,
    }
    return with_columns(table, columns)


def _described_genes(
    var: pd.DataFrame, moments: Float[np.ndarray, "genes 8"], n_cells: int, state: State
) -> pd.DataFrame:
    """The table of genes with moments over all cells (population variance)."""
    mean, variance = _mean_and_variance(moments, TOTAL, SQUARE, n_cells)
    variance[_constant(moments, n_cells)] = 0.0
    columns = {"mean": mean, "variance": variance, "nnz": moments[:, COUNT].astype(np.int64)}
    if state == "counts":
        names = ("log1p_mean", "log1p_variance")
        columns |= dict(zip(names, _mean_and_variance(moments, LOG_TOTAL, LOG_SQUARE, n_cells), strict=True))
    return with_columns(_writable(var), columns)


def _mean_and_variance(
    moments: Float[np.ndarray, "genes 8"], total: int, square: int, n_cells: int
) -> tuple[np.ndarray, np.ndarray]:
    mean = moments[:, total] / n_cells
    return mean, np.maximum(moments[:, square] / n_cells - mean**2, 0.0)


def _constant(moments: Float[np.ndarray, "genes 8"], n_cells: int) -> Bool[np.ndarray, " genes"]:
    """Genes with one value in every cell, be it zero; a difference of two large sums would not tell."""
    everywhere = (moments[:, COUNT] == n_cells) & (moments[:, SMALLEST] == moments[:, LARGEST])
    return everywhere | (moments[:, COUNT] == 0)


def _writable(table: pd.DataFrame) -> pd.DataFrame:
    """A copy whose columns AnnData can write: text where a column mixes types, gaps where values are missing."""
    table = table.copy()
    table.index = table.index.astype(str).rename(None)
    table.columns = [str(column) for column in table.columns]
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = pd.Categorical(table[name].map(str, na_action="ignore"))
    return table


def _encoded(elements: dict[str, Any]) -> dict[str, bytes]:
    """The files of an AnnData of these elements. In memory first: there Zarr takes a third of the time."""
    files: dict[str, Buffer] = {}
    with anndata.settings.override(auto_shard_zarr_v3=False):
        root = zarr.open_group(MemoryStore(files), mode="w", zarr_format=3)
        root.attrs.update({"encoding-type": "anndata", **ENCODING})
        for name, element in elements.items():
            write_elem(root, name, element)
    return {key: content.to_bytes() for key, content in files.items()}


def _matrix_files(work: Work, indptr: Int64[np.ndarray, " cells_plus_1"]) -> dict[str, bytes]:
    """What there is of the matrix beside its shards."""
    target = work.target
    codec, shape = CODECS[target.profile], [target.n_cells, target.n_genes]
    if target.profile == "archive":
        chunks, shards = ([size // target.n_genes, target.n_genes] for size in (target.chunk, target.shard))
        return {"X/zarr.json": _json(array_metadata(shape, np.dtype(target.dtype), chunks, shards, codec))}
    attributes = {"encoding-type": "csr_matrix", **ENCODING, "shape": shape}
    files = {"X/zarr.json": _json({"attributes": attributes, "zarr_format": 3, "node_type": "group"})}
    for name, dtype in target.arrays.items():
        about = array_metadata([target.n_values], dtype, [target.chunk], [target.shard], codec)
        files[f"{name}/zarr.json"] = _json(about)
    return files | {key: content for key, content in _indptr_files(indptr).items() if key.startswith("X/indptr/")}


def _json(about: dict[str, Any]) -> bytes:
    return json.dumps(about, indent=2).encode()


def _indptr_files(indptr: Int64[np.ndarray, " cells_plus_1"]) -> dict[str, bytes]:
    files: dict[str, Buffer] = {}
    array = zarr.open_group(MemoryStore(files), mode="w", zarr_format=3).create_array(
        "X/indptr",
        shape=indptr.shape,
        dtype=indptr.dtype,
        chunks=indptr.shape,
        compressors=[BloscCodec(cname="lz4", clevel=3, shuffle="shuffle", typesize=8), Crc32cCodec()],
        config={"write_empty_chunks": True},
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
    array[:] = indptr
    return {key: content.to_bytes() for key, content in files.items()}


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for key, content in files.items():
        file = folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _manifest(work: Work, files: dict[str, bytes]) -> pd.DataFrame:
    """Write the files beside the shards, and list all of them."""
    _write_files(work.store, files)
    rest = pd.DataFrame(
        {
            "key": list(files),
            "bytes": [len(content) for content in files.values()],
            "sha256": [hashlib.sha256(content).hexdigest() for content in files.values()],
            "index": "",
        }
    )
    return pd.concat([shard_files(work), rest]).sort_values("key", ignore_index=True)
