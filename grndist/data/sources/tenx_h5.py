"""Reading Cell Ranger's h5, version 3 (group matrix) or 2 (one group, called as the genome).

Its matrix is genes x cells by columns, which is cells x genes by rows.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int64
from scipy import sparse

from grndist.data.sources.matrices import SparseRows, sparse_arrays
from grndist.data.sources.source import Rows, SourceError, Unchecked, plain

MATRIX = {"barcodes", "data", "indices", "indptr", "shape"}
VERSION_3, LEGACY = {"features"}, {"genes", "gene_names"}
GENE_EXPRESSION = "Gene Expression"
NAMED_OTHERWISE = {"name", "id", "gene_id", "feature_type", "_all_tag_keys"}


@dataclass(frozen=True)
class GeneRows:
    """Rows of which some columns are left out."""

    rows: Rows
    columns: Int64[np.ndarray, " genes"]

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.rows.shape[0], len(self.columns)

    @property
    def n_stored(self) -> int | None:
        """Values in the file, those left out among them."""
        return self.rows.n_stored

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Cells `start` to `stop`, the columns kept."""
        return sparse.csr_matrix(self.rows.read(start, stop)[:, self.columns])


def found_in_10x(path: Path, file: h5py.File, name: str) -> Unchecked:
    """Gene expression in the group `name`."""
    group = file[name]
    features, cells = (int(length) for length in group["shape"][:])
    obs, var = _cells(group, cells), _legacy_genes(group) if "genes" in group else _genes(group["features"])
    if (len(obs), len(var)) != (cells, features):
        raise SourceError(
            f"{path}: {name} is {features} x {cells}, but there are {len(var)} features and {len(obs)} barcodes; "
            "download the file again"
        )
    n_stored, _ = sparse_arrays(path, group, name, cells)
    every = SparseRows(path.absolute(), name, (cells, features), n_stored)
    columns, described = gene_columns(var, "10x h5")
    rows = every if len(columns) == features else GeneRows(every, columns)
    return Unchecked(rows.shape, lambda work: rows, plain(obs), plain(var.iloc[columns]), False, described)


def gene_columns(var: pd.DataFrame, kind: str) -> tuple[Int64[np.ndarray, " genes"], str]:
    """Columns of gene expression, and the kind in words: guides and antibodies are not genes."""
    if "feature_types" not in var:
        return np.arange(len(var)), kind
    is_gene = (var["feature_types"] == GENE_EXPRESSION).to_numpy()
    left_out = int((~is_gene).sum())
    return np.flatnonzero(is_gene), f"{kind}, {left_out} features of other types left out" if left_out else kind


def _cells(group: h5py.Group, n_cells: int) -> pd.DataFrame:
    obs = pd.DataFrame(index=_text(group["barcodes"]))
    flags = group.get("filtered_barcodes")  # of files with probes
    return obs.assign(filtered_barcodes=flags[:].astype(bool)) if flags is not None and len(flags) == n_cells else obs


def _genes(features: h5py.Group) -> pd.DataFrame:
    """Columns called as scanpy calls them."""
    var = pd.DataFrame(index=_text(features["name"]))
    var["gene_ids"] = _text(features["gene_id" if "gene_id" in features else "id"])
    if "gene_id" in features:
        var["probe_ids"] = _text(features["id"])
    var["feature_types"] = _text(features["feature_type"])
    for name, item in features.items():
        if isinstance(item, h5py.Dataset) and name not in NAMED_OTHERWISE and item.shape == (len(var),):
            var[name] = item[:] if item.dtype.kind == "b" else _text(item)
    return var


def _legacy_genes(group: h5py.Group) -> pd.DataFrame:
    return pd.DataFrame({"gene_ids": _text(group["genes"])}, index=_text(group["gene_names"]))


def _text(array: h5py.Dataset) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in array[:].tolist()]
