"""What holds of every source: names there and unique, values finite and not negative, each stored once."""

import json
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.sources.source import Rows, SourceError, SourceOptions, cells_between
from grndist.files import write_whole
from grndist.genes import some

LARGEST = float(np.finfo(np.float32).max)
ROUNDED_TO_ZERO = 2.0**-150  # by float32, in which values end, as is anything smaller


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a source, canonical, every value checked. Names are in a file, so that it stays small when sent."""

    path: Path
    rows: Rows
    names: Path

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.rows.shape

    @property
    def n_stored(self) -> int | None:
        """Values in the file; see `Rows`."""
        return self.rows.n_stored

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Cells `start` to `stop`: columns ascending, each value once, no stored zeros.

        Raises:
            SourceError: a value is missing, infinite, beyond float32 or negative, or the file is damaged.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"{cells_between(start, stop)} of {self.shape[0]} cells")
        matrix = merged(self.rows.read(start, stop))
        if matrix.shape != (stop - start, self.shape[1]):
            raise SourceError(f"{self.path} was changed while it was in use; run the same command again")
        if not matrix.nnz:
            return matrix
        low, high = matrix.data.min(), matrix.data.max()
        if not (low >= 0 and high <= LARGEST):  # also where they are nan
            raise SourceError(self._bad_value(matrix, start, stop))
        return without_zeros(matrix) if low <= ROUNDED_TO_ZERO else matrix

    def _bad_value(self, matrix: sparse.csr_matrix, start: int, stop: int) -> str:
        values = matrix.data
        bad = np.flatnonzero(~((values >= 0) & (values <= LARGEST)))
        cell = start + int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        names = json.loads(self.names.read_text())
        return (
            f"{self.path}: gene {names['genes'][matrix.indices[bad[0]]]!r} in cell {names['cells'][cell]!r} is "
            f"{values[bad[0]]} ({len(bad)} such values among {cells_between(start, stop)}); finite values of 0 or more "
            "were expected: give counts or log-normalised values (--layer or --raw may hold them), not scaled ones, "
            "and no missing values"
        )


def merged(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The matrix with ascending columns, each once; whatever the type of the values, sums up to 2**53 are exact."""
    matrix.sort_indices()  # returns at once where columns ascend
    if not matrix.has_canonical_format:
        matrix = matrix.astype(np.float64)
        matrix.sum_duplicates()
    return matrix


def without_zeros(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The matrix without stored zeros, and without what would become one."""
    matrix.data[np.abs(matrix.data) <= ROUNDED_TO_ZERO] = 0
    matrix.eliminate_zeros()
    return matrix


def checked(path: Path, rows: Rows, obs: pd.DataFrame, var: pd.DataFrame, work: Path) -> CheckedRows:
    """The same rows with checks; the names that messages need are left in `work`."""
    names = work / "names.json"
    write_whole(names, [json.dumps({"cells": obs.index.tolist(), "genes": var.index.tolist()}).encode()])
    return CheckedRows(path, rows, names)


def check_shape(path: Path, shape: tuple[int, int]) -> None:
    """Refuse a matrix without cells or genes."""
    cells, genes = shape
    if not cells or not genes:
        raise SourceError(f"{path} is empty: {cells} cells, {genes} genes; at least one of each is needed")


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
