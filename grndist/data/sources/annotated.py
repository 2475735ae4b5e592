"""AnnData as HDF5 (h5ad) or Zarr: which matrix is asked for, and the two tables beside it."""

from pathlib import Path

import pandas as pd
from anndata.io import read_elem

from grndist.data.sources.container import ZARR_MARKS, Tree, opened
from grndist.data.sources.matrices import matrix_at
from grndist.data.sources.source import SourceError, SourceOptions, Unchecked, plain, quiet
from grndist.genes import some


def open_zarr(path: Path, options: SourceOptions) -> Unchecked:
    """Open a folder with an AnnData, as Zarr version 2 or 3; a store of ours is one."""
    if not any((path / mark).is_file() for mark in ZARR_MARKS):
        raise SourceError(f"{path} is no Zarr folder: it has no {' or '.join(ZARR_MARKS)}; copy or write it again")
    with opened(path) as tree, quiet():
        if "obs" in tree and "var" in tree:
            return annotated(path, tree, options, "Zarr")
        names = sorted(tree)
    raise SourceError(f"{path} holds no AnnData (obs, var) but {some(names) or 'nothing'}; write it with write_zarr")


def annotated(path: Path, tree: Tree, options: SourceOptions, kind: str) -> Unchecked:
    """One matrix and the two tables; other layers and embeddings stay unread."""
    parent, key, var = _place(path, tree, options)
    obs, genes = read_elem(tree["obs"]), read_elem(tree[var])
    if not (isinstance(obs, pd.DataFrame) and isinstance(genes, pd.DataFrame)):
        raise SourceError(f"{path}: written by anndata before 0.7; read it with scanpy and write it again (write_h5ad)")
    name = f"{parent}/{key}" if parent else key
    shape, rows = matrix_at(path.absolute(), tree, name)
    if shape != (len(obs), len(genes)):
        raise SourceError(f"{path}: {key} is {shape}, but there are {len(obs)} cells and {len(genes)} genes")
    return Unchecked(shape, rows, plain(obs), plain(genes), _logged(tree), f"{kind}, {name}")


def _place(path: Path, tree: Tree, options: SourceOptions) -> tuple[str, str, str]:
    """Group and name of the matrix, name of its table of genes."""
    layers = sorted(tree["layers"]) if _there(tree, "layers") else []
    known = f"its layers are {some(layers, 20)}" if layers else "it has no layers"
    if options.layer is not None:
        if options.layer not in layers:
            raise SourceError(
                f"{path}: no layer {options.layer!r}; {known}; choose one with --layer, or leave it out for X"
            )
        return "layers", options.layer, "var"
    if options.raw:
        if not _there(tree, "raw"):
            raise SourceError(f"{path}: it has no .raw; {known}; leave --raw out for X")
        return "raw", "X", "raw/var"
    if not _there(tree, "X"):
        raise SourceError(f"{path}: its X is empty; {known}; choose one with --layer NAME")
    return "", "X", "var"


def _there(tree: Tree, name: str) -> bool:
    return name in tree and tree[name].attrs.get("encoding-type") != "null"


def _logged(tree: Tree) -> bool:
    """Whether scanpy's log1p, or our own store's state, says so."""
    state = tree.get("uns/grndist/state")
    return "uns/log1p" in tree or (state is not None and read_elem(state) == "log1p")
