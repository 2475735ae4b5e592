"""Reading HDF5: an h5ad (X, a layer or .raw; sparse or dense); a 10x h5 is passed on."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

from grndist.data.sources.source import Source, SourceError, SourceOptions, plain, readable
from grndist.data.sources.tenx import read_10x_h5
from grndist.genes import some

ROWS_AT_ONCE = 4096  # of a dense matrix, which is never held whole


def read_hdf5(path: Path, options: SourceOptions) -> Source:
    """Read an h5ad or a 10x h5, whatever the file's ending."""
    with readable(path, "HDF5 (h5ad or 10x h5)"), h5py.File(path, "r") as file:
        if "obs" in file and "var" in file:
            return _read_h5ad(path, file, options)
        groups = {name: set(item) for name, item in file.items() if isinstance(item, h5py.Group)}
    if options.raw or options.layer is not None:
        raise SourceError(f"{path} is not an h5ad: --layer and --raw do not apply; leave them out here")
    matrix = {"barcodes", "data", "indices", "indptr", "shape"}
    if matrix | {"features"} <= groups.get("matrix", set()) or (
        len(groups) == 1 and matrix | {"genes", "gene_names"} <= next(iter(groups.values()))
    ):
        return read_10x_h5(path)
    raise SourceError(
        f"{path} is neither an h5ad (no obs, var) nor a 10x h5 of one genome (no matrix with features and barcodes): "
        f"it holds {some(sorted(groups)) or 'no groups'}; write it with anndata's write_h5ad"
    )


def _read_h5ad(path: Path, file: h5py.File, options: SourceOptions) -> Source:
    """Read one matrix of an h5ad and the two tables; other layers and embeddings stay unread."""
    parent, key, var = _h5ad_place(path, file, options)
    obs, genes = read_elem(file["obs"]), read_elem(file[var])
    if not (isinstance(obs, pd.DataFrame) and isinstance(genes, pd.DataFrame)):
        raise SourceError(f"{path}: written by anndata before 0.7; read it with scanpy and write it again (write_h5ad)")
    matrix = _h5_matrix(path, file[parent][key])
    if matrix.shape != (len(obs), len(genes)):
        raise SourceError(f"{path}: {key} is {matrix.shape}, but there are {len(obs)} cells and {len(genes)} genes")
    description = f"h5ad, {key if parent == '/' else f'{parent}/{key}'}"
    return Source(matrix, plain(obs), plain(genes), "log1p" in file.get("uns", {}), description)


def _h5ad_place(path: Path, file: h5py.File, options: SourceOptions) -> tuple[str, str, str]:
    """Group and name of the matrix, name of its table of genes."""
    layers = sorted(file.get("layers", {}))
    known = f"its layers are {some(layers, 20)}" if layers else "it has no layers"
    if options.layer is not None:
        if options.layer not in layers:
            raise SourceError(
                f"{path}: no layer {options.layer!r}; {known}; choose one with --layer, or leave it out for X"
            )
        return "layers", options.layer, "var"
    if options.raw:
        if "raw" not in file:
            raise SourceError(f"{path}: it has no .raw; {known}; leave --raw out for X")
        return "raw", "X", "raw/var"
    if "X" not in file or file["X"].attrs.get("encoding-type") == "null":
        raise SourceError(f"{path}: its X is empty; {known}; choose one with --layer NAME")
    return "/", "X", "var"


def _h5_matrix(path: Path, element: h5py.Group | h5py.Dataset) -> sparse.csr_matrix:
    """Sparse (CSR, CSC) or dense, as CSR; a dense one is read in blocks of rows."""
    if isinstance(element, h5py.Group):
        matrix = sparse.csr_matrix(read_elem(element))
        matrix.check_format(full_check=True)
        return matrix
    if element.ndim != 2 or element.dtype.kind not in "buif":
        raise SourceError(
            f"{path}: {element.name} is {element.dtype} of shape {element.shape}, not a matrix of numbers"
        )
    dtype = np.promote_types(element.dtype, np.float32) if element.dtype.kind == "f" else element.dtype  # no float16
    starts = range(0, element.shape[0], ROWS_AT_ONCE)
    blocks = [sparse.csr_matrix(element[start : start + ROWS_AT_ONCE].astype(dtype)) for start in starts]
    return sparse.csr_matrix(sparse.vstack(blocks, format="csr")) if blocks else sparse.csr_matrix(element.shape)
