"""What a source is, which part of it is asked for, and how a reader's failure becomes one message."""

import csv
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable
from warnings import catch_warnings, simplefilter

import pandas as pd
from anndata._io.specs.registry import IORegistryError
from pydantic import Field
from scipy import sparse

from grndist.config import Config
from grndist.errors import UserError

# what readers raise on damaged files
BROKEN_TEXT = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)
BROKEN = (*BROKEN_TEXT, KeyError, IndexError, TypeError, ValueError, OverflowError, RuntimeError, IORegistryError)


class SourceError(UserError):
    """A file that was given as a count matrix is not one."""


class UnreadableError(SourceError):
    """A source cannot be read now: it is out of reach or damaged. That says nothing of what was read before."""


class SourceOptions(Config):
    """Which matrix of a file to read, and which names."""

    layer: str | None = Field(None, description="h5ad, Zarr: read this layer instead of X")
    raw: bool = Field(False, description="h5ad, Zarr: read .raw instead of X")
    orientation: Literal["genes_in_rows", "cells_in_rows"] | None = Field(
        None, description="CSV, TSV: what a row is; it must be said"
    )
    gene_column: str | None = Field(None, description="column of the table of genes that holds the names to use")
    make_genes_unique: bool = Field(False, description="tell genes of one name apart by -1, -2, ... (as scanpy does)")
    cells_table: Path | None = Field(
        None, description="CSV or TSV of what is known of each cell; first column: its name"
    )


@runtime_checkable
class Rows(Protocol):
    """A matrix that is read by rows. `read` opens the file anew, so it works in any thread or process."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""

    @property
    def n_stored(self) -> int | None:
        """Values that the file holds for these cells, zeros and features left out among them; None if not known."""

    def read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Cells `start` to `stop`, [cells, genes], in any numeric type.

        Raises:
            SourceError: the file is damaged there.
        """


@dataclass(frozen=True)
class Unchecked:
    """What a reader makes of a file before names and values are checked."""

    shape: tuple[int, int]  # cells, genes
    rows: Callable[[Path], Rows]  # given a folder to work in; it may take long, and nobody has checked the values
    obs: pd.DataFrame
    var: pd.DataFrame
    logged: bool
    description: str


@dataclass(frozen=True)
class Source:
    """A matrix with names: `obs` is indexed by cell, `var` by gene."""

    path: Path
    rows: Rows  # columns ascending, each value once, no stored zeros, finite and not negative
    obs: pd.DataFrame
    var: pd.DataFrame
    logged: bool  # the file says so itself (scanpy's uns["log1p"])
    description: str


@contextmanager
def readable(path: Path, kind: str, broken: tuple[type[Exception], ...] = BROKEN) -> Iterator[None]:
    """Turn what the libraries raise on damaged files into one message."""
    try:
        yield
    except broken as error:
        raise UnreadableError(
            f"{path} is not readable as {kind}: {str(error) or type(error).__name__}; check what the file is and "
            "that it is complete (download or write it again)"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of old formats, or of names that are not unique, which is checked here. Not for use in threads."""
    with catch_warnings():
        simplefilter("ignore")
        yield


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Names as text, and pandas' nullable text as plain objects, which every AnnData can hold."""
    nullable = [name for name in table.columns if isinstance(table[name].dtype, pd.StringDtype)]
    table = table.astype(dict.fromkeys(nullable, object))
    return table.set_axis(table.index.astype(str).astype(object).rename(None), axis=0)


def cells_between(start: int, stop: int) -> str:
    """Cells `start` to `stop` in words, counted from 0, for messages."""
    return f"cells {start} to {stop - 1}"
