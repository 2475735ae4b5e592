"""What a source is, which part of it is asked for, and how a reader's failure becomes one message."""

import csv
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
from anndata._io.specs.registry import IORegistryError
from pydantic import Field
from scipy import sparse

from grndist.config import Config
from grndist.errors import UserError

# what readers raise on damaged files
BROKEN_TEXT = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)
BROKEN = (*BROKEN_TEXT, KeyError, IndexError, TypeError, ValueError, OverflowError, IORegistryError)


class SourceError(UserError):
    """A file that was given as a count matrix is not one."""


class SourceOptions(Config):
    """Which matrix of a file to read, and which names."""

    layer: str | None = Field(None, description="h5ad: read this layer instead of X")
    raw: bool = Field(False, description="h5ad: read .raw instead of X")
    orientation: Literal["genes_in_rows", "cells_in_rows"] | None = Field(
        None, description="CSV, TSV: what a row is; it must be said"
    )
    gene_column: str | None = Field(None, description="column of the table of genes that holds the names to use")
    make_genes_unique: bool = Field(False, description="tell genes of one name apart by -1, -2, ... (as scanpy does)")
    cells_table: Path | None = Field(
        None, description="CSV or TSV of what is known of each cell; first column: its name"
    )


@dataclass(frozen=True)
class Source:
    """A matrix with names: `obs` is indexed by cell, `var` by gene."""

    matrix: sparse.csr_matrix  # [cells, genes], any numeric type
    obs: pd.DataFrame
    var: pd.DataFrame
    logged: bool  # the file says so itself (scanpy's uns["log1p"])
    description: str

    def place(self, position: int | np.integer) -> str:
        """The gene and cell of the stored value number `position`, for messages."""
        cell = int(np.searchsorted(self.matrix.indptr, position, side="right")) - 1
        gene = int(self.matrix.indices[position])
        return f"gene {str(self.var.index[gene])!r} in cell {str(self.obs.index[cell])!r}"


@contextmanager
def readable(path: Path, kind: str, broken: tuple[type[Exception], ...] = BROKEN) -> Iterator[None]:
    """Turn what the libraries raise on damaged files into one message."""
    try:
        with catch_warnings():
            simplefilter("ignore")  # old formats and names that are not unique: the latter is checked here
            yield
    except broken as error:
        raise SourceError(
            f"{path} is not readable as {kind}: {str(error) or type(error).__name__}; check what the file is and "
            "that it is complete (download or write it again)"
        ) from error


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Names as text, and pandas' nullable text as plain objects, which every AnnData can hold."""
    nullable = [name for name in table.columns if isinstance(table[name].dtype, pd.StringDtype)]
    table = table.astype(dict.fromkeys(nullable, object))
    return table.set_axis(table.index.astype(str).astype(object).rename(None), axis=0)
