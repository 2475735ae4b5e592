"""What holds of every source: names there and unique, values finite and not negative, each stored once."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.sources.source import Source, SourceError, SourceOptions
from grndist.genes import some

LARGEST = float(np.finfo(np.float32).max)


def canonical(path: Path, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each value once, columns ascending, no stored zeros."""
    if matrix.data.dtype.kind not in "buif":
        raise SourceError(
            f"{path}: its values are {matrix.data.dtype}, not real numbers; give counts or expression values"
        )
    if matrix.data.dtype.kind == "b":
        matrix = sparse.csr_matrix(matrix.astype(np.uint8))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def check_cell_names(path: Path, names: pd.Index) -> None:
    """Refuse cells without a name and names that are not unique."""
    missing = _positions_without_name(names)
    if len(missing):
        raise SourceError(f"{path}: {len(missing)} cells have no name (number {_ordinals(missing)}); name every cell")
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise SourceError(
            f"{path}: {len(twice)} cell names are not unique, among them {some(list(twice))}; make them so, "
            "e.g. with the batch as prefix, or anndata's obs_names_make_unique()"
        )


def with_gene_names(path: Path, var: pd.DataFrame, options: SourceOptions) -> pd.DataFrame:
    """The table of genes under the names asked for; the names of before are kept as `source_index`."""
    if options.gene_column is not None:
        if options.gene_column not in var.columns:
            raise SourceError(
                f"{path}: the table of genes has no column {options.gene_column!r}; it has "
                f"{some(list(var.columns), 20) or 'none'}; choose one with --gene-column, or leave it out for the index"
            )
        names = var[options.gene_column].astype(object)
        var = var.assign(source_index=var.index).set_axis(pd.Index(names.where(names.notna(), "").map(str).to_numpy()))
    missing = _positions_without_name(var.index)
    if len(missing):
        raise SourceError(
            f"{path}: {len(missing)} genes have no name (number {_ordinals(missing)}); give another --gene-column, "
            "or leave those genes out of the file"
        )
    return _with_unique_names(path, var, options.make_genes_unique)


def _with_unique_names(path: Path, var: pd.DataFrame, make_unique: bool) -> pd.DataFrame:
    twice = var.index[var.index.duplicated()].unique()
    if len(twice) and not make_unique:
        raise SourceError(
            f"{path}: {len(twice)} gene names are not unique, among them {some(list(twice))}; take the names from "
            f"another column (--gene-column; there is {some(list(var.columns), 20) or 'none'}), or pass "
            "--make-genes-unique, which adds -1, -2, ... to them"
        )
    return var.set_axis(anndata.utils.make_index_unique(var.index)) if len(twice) else var


def _positions_without_name(names: pd.Index) -> np.ndarray:
    return np.flatnonzero(names.isna() | names.astype(str).str.strip().isin(["", "nan", "NaN"]))


def _ordinals(positions: np.ndarray) -> str:
    return ", ".join(str(position + 1) for position in positions[:3])


def check_values(path: Path, source: Source) -> None:
    """Refuse a matrix without cells, genes or non-zero values, and a value that is missing, infinite or negative."""
    cells, genes = source.matrix.shape
    if not cells or not genes:
        raise SourceError(f"{path} is empty: {cells} cells, {genes} genes; at least one of each is needed")
    values = source.matrix.data
    if not len(values):
        raise SourceError(f"{path} is empty: all values of its {cells} cells and {genes} genes are zero")
    bad = np.flatnonzero(~((values >= 0) & (values <= LARGEST)))
    if len(bad):
        raise SourceError(
            f"{path}: {source.place(bad[0])} is {values[bad[0]]} ({len(bad)} such values in all); finite values of "
            "0 or more were expected: give counts or log-normalised values (--layer or --raw may hold them), "
            "not scaled ones, and no missing values"
        )
