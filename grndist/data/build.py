"""Writing a store: shuffle the cells, describe cells and genes, write shards, list them all in the manifest."""

import hashlib
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from scipy import sparse
from zarr.codecs import BloscCodec, Crc32cCodec

from grndist.data.store import BLOCK, CHUNK, FORMAT_VERSION, SHARD, State, StoreError, digest_of, is_store
from grndist.files import written_aside
from grndist.genes import NON_TARGETING
from grndist.progress import track
from grndist.seeds import stream


def write_store(
    path: Path,
    matrix: sparse.csr_matrix,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    state: State,
    source: dict[str, str],
    shuffle_seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write a store beside `path`, then put it in place; whatever was there stays until then.

    Args:
        path: the store's directory.
        matrix: [cells, genes], values in `state`.
        obs: one row a cell, with a `perturbation` column in which controls are "non-targeting".
        var: one row a gene; its index is the panel.
        state: what the values are; counts are kept as unsigned integers.
        source: where the data come from, for the record.
        shuffle_seed: cells are put in this random order, so that any block of them is a random sample.
        overwrite: replace an existing store.

    Raises:
        UserError: the disk is full, a count is beyond 32 bits, or what is there is no store.
    """
    if overwrite and path.exists() and not is_store(path):
        raise StoreError(f"{path} exists and is not a grndist store, so it is not overwritten; choose another name")
    order = stream(shuffle_seed, "store-order").permutation(matrix.shape[0])
    matrix = _compact(matrix[order], state)
    median_total, cells, genes = _described(matrix, obs.iloc[order], var, state)
    cells["source_row"] = order
    with written_aside(path, overwrite) as aside, anndata.settings.override(auto_shard_zarr_v3=False):
        root = zarr.open_group(aside, mode="w", zarr_format=3)
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        _write_matrix(root, matrix)
        write_elem(root, "obs", cells)
        write_elem(root, "var", genes)
        manifest = _manifest(aside)
        about = {
            "format_version": FORMAT_VERSION,
            "profile": "train",
            "state": state,
            "shuffle_seed": shuffle_seed,
            "block": BLOCK,
            "n_cells": matrix.shape[0],
            "n_genes": matrix.shape[1],
            "median_total": median_total,
            "source": json.dumps(source, sort_keys=True),
            "source_digest": source.get("sha256", ""),
            "digest": digest_of(manifest),
            "manifest": manifest,
        }
        write_elem(root, "uns", {"grndist": about})


def _compact(matrix: sparse.csr_matrix, state: State) -> sparse.csr_matrix:
    """Sorted columns, no stored zeros, the smallest fitting type."""
    matrix = sparse.csr_matrix(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    if state != "counts":
        matrix.data = matrix.data.astype(np.float32)
        return matrix
    largest = int(matrix.data.max(initial=0))
    if largest >= 2**32:
        raise StoreError(f"a count of {largest} does not fit 32 bits; are these counts?")
    matrix.data = matrix.data.astype(np.uint16 if largest < 2**16 else np.uint32)
    return matrix


def _described(
    matrix: sparse.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame, state: State
) -> tuple[float, pd.DataFrame, pd.DataFrame]:
    """Median total, obs with totals and control flag, var with moments over all cells (population variance)."""
    totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    median_total = float(np.median(totals))
    cells = _writable(obs)
    cells["perturbation"] = pd.Categorical(obs["perturbation"].astype(str).to_numpy())
    cells["is_control"] = (cells["perturbation"] == NON_TARGETING).to_numpy()
    cells["total_counts"] = totals
    cells["n_genes"] = np.diff(matrix.indptr).astype(np.int32)
    genes = _writable(var)
    genes["mean"], genes["variance"] = _moments(matrix, matrix.data)
    genes["nnz"] = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int64)
    if state == "counts":
        scale = np.divide(median_total, totals, out=np.zeros_like(totals), where=totals > 0)
        logged = np.repeat(scale, np.diff(matrix.indptr))
        logged *= matrix.data
        genes["log1p_mean"], genes["log1p_variance"] = _moments(matrix, np.log1p(logged, out=logged))
    return median_total, cells, genes


def _moments(matrix: sparse.csr_matrix, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every gene, with `values` in the place of the matrix's non-zero ones."""
    n_cells, n_genes = matrix.shape
    mean = np.bincount(matrix.indices, weights=values, minlength=n_genes) / n_cells
    square = np.bincount(matrix.indices, weights=np.square(values, dtype=np.float64), minlength=n_genes) / n_cells
    return mean, np.maximum(square - mean**2, 0.0)


def _writable(table: pd.DataFrame) -> pd.DataFrame:
    """A copy whose columns AnnData can write: text where a column mixes types."""
    table = table.copy()
    table.index = table.index.astype(str).rename(None)
    table.columns = [str(column) for column in table.columns]
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = pd.Categorical(table[name].map(str))
    return table


def _write_matrix(root: zarr.Group, matrix: sparse.csr_matrix) -> None:
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(matrix.shape)})
    indices = matrix.indices.astype(np.uint16 if matrix.shape[1] <= 2**16 else np.uint32)
    for name, values in (("data", matrix.data), ("indices", indices)):
        _write_array(group, name, values, CHUNK, SHARD)
    _write_array(group, "indptr", matrix.indptr.astype(np.int64), len(matrix.indptr), len(matrix.indptr))


def _write_array(group: zarr.Group, name: str, values: np.ndarray, chunk: int, shard: int) -> None:
    size = values.dtype.itemsize
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk,),
        shards=(shard,) if shard > chunk else None,
        compressors=[BloscCodec(cname="lz4", clevel=3, shuffle="shuffle", typesize=size), Crc32cCodec()],
        config={"write_empty_chunks": True},
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
    for start in track(range(0, len(values), shard), f"write X/{name}", -(-len(values) // shard)):
        array[start : start + shard] = values[start : start + shard]


def _manifest(folder: Path) -> pd.DataFrame:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return pd.DataFrame(
        {
            "key": [file.relative_to(folder).as_posix() for file in files],
            "bytes": [file.stat().st_size for file in files],
            "sha256": [_sha256(file) for file in files],
        }
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
