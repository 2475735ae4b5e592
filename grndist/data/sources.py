"""Reading a count matrix as others publish it: h5ad, 10x (folder or h5), CSV and TSV.

`read_source` returns cells x genes with names, checked: every value finite and not negative, every name
there and unique. What the labels of the cells mean, and whether values are counts, `ingest` decides.
"""

import csv
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TextIO
from warnings import catch_warnings, simplefilter

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata._io.specs.registry import IORegistryError
from anndata.io import read_elem
from jaxtyping import Float
from pydantic import Field
from scipy import sparse

from grndist.config import Config
from grndist.errors import UserError
from grndist.genes import some

HDF5_ENDINGS = (".h5ad", ".h5", ".hdf5")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
ROWS_AT_ONCE = 4096  # of a dense matrix, which is never held whole
LARGEST = float(np.finfo(np.float32).max)
BROKEN_TEXT = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)
BROKEN = (
    *BROKEN_TEXT,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
    IORegistryError,
)  # what readers raise


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

    def place(self, position: int) -> str:
        """The gene and cell of the stored value number `position`, for messages."""
        cell = int(np.searchsorted(self.matrix.indptr, position, side="right")) - 1
        gene = int(self.matrix.indices[position])
        return f"gene {str(self.var.index[gene])!r} in cell {str(self.obs.index[cell])!r}"


def read_source(path: Path, options: SourceOptions) -> Source:
    """Read `path`, a file or a 10x folder, and check it.

    Raises:
        SourceError: missing, unknown or damaged file; an option that does not fit it; no cell, gene or
            non-zero value; a value that is missing, infinite or negative; a name missing or twice.
    """
    read = _reader(path)
    _refuse_misplaced(path, read, options)
    source = read(path, options)
    source = replace(source, matrix=_canonical(path, source.matrix))
    _check_cell_names(path, source.obs.index)
    source = replace(source, var=_with_gene_names(path, source.var, options))
    _check_values(path, source)
    return source if options.cells_table is None else _with_cells_table(source, options.cells_table)


def source_digest(path: Path) -> str:
    """Sha256 of a file; of a 10x folder, that of the lines `sha256sum` prints for its matrix and its tables."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if ".mtx" in file.name or ".tsv" in file.name)
        lines = [f"{source_digest(file)}  {file.name}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reader(path: Path) -> Callable[[Path, SourceOptions], Source]:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; give the path of an h5ad, 10x, CSV or TSV source")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read by you; change its permissions (chmod +r)")
    if path.is_dir():
        return _read_10x_folder
    if path.suffix.lower() in HDF5_ENDINGS:
        return _read_hdf5
    if _text_ending(path) in DELIMITERS:
        return _read_text
    raise SourceError(
        f"{path}: unknown kind of file {path.suffix!r}; known are .h5ad, .h5 (10x), a 10x folder with matrix.mtx, "
        "and .csv, .tsv, .txt, plain or .gz"
    )


def _refuse_misplaced(path: Path, read: Callable[..., Source], options: SourceOptions) -> None:
    """An option without effect is a misunderstanding."""
    if options.layer is not None and options.raw:
        raise SourceError(f"{path}: --layer {options.layer} and --raw exclude each other; give one of them")
    if read is not _read_hdf5 and (options.raw or options.layer is not None):
        raise SourceError(f"{path}: --layer and --raw are for h5ad files; leave them out here")
    if read is not _read_text and options.orientation is not None:
        raise SourceError(f"{path}: --genes-in-rows and --cells-in-rows are for CSV and TSV; leave them out here")


@contextmanager
def _readable(path: Path, kind: str, broken: tuple[type[Exception], ...] = BROKEN) -> Iterator[None]:
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


def _read_hdf5(path: Path, options: SourceOptions) -> Source:
    with _readable(path, "HDF5 (h5ad or 10x h5)"), h5py.File(path, "r") as file:
        if "obs" in file and "var" in file:
            return _read_h5ad(path, file, options)
        groups = {name: set(item) for name, item in file.items() if isinstance(item, h5py.Group)}
    if options.raw or options.layer is not None:
        raise SourceError(f"{path} is not an h5ad: --layer and --raw do not apply; leave them out here")
    matrix = {"barcodes", "data", "indices", "indptr", "shape"}
    if matrix | {"features"} <= groups.get("matrix", set()) or (
        len(groups) == 1 and matrix | {"genes", "gene_names"} <= next(iter(groups.values()))
    ):
        return _read_10x_h5(path)
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
    return Source(matrix, _plain(obs), _plain(genes), "log1p" in file.get("uns", {}), description)


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


def _read_10x_h5(path: Path) -> Source:
    import scanpy

    with _readable(path, "10x h5"):
        return _from_10x(scanpy.read_10x_h5(path, gex_only=False), "10x h5")


def _read_10x_folder(path: Path, options: SourceOptions) -> Source:
    """Read Cell Ranger's folder: version 3 (gzip, features.tsv) or 2 (plain, genes.tsv); names may have a prefix."""
    import scanpy

    prefix = _10x_prefix(path)
    with _readable(path, "10x folder"):
        return _from_10x(scanpy.read_10x_mtx(path, make_unique=False, gex_only=False, prefix=prefix), "10x folder")


def _10x_prefix(path: Path) -> str:
    names = {file.name for file in path.iterdir()}
    prefixes = sorted({name.partition("matrix.mtx")[0] for name in names if "matrix.mtx" in name})
    if len(prefixes) != 1:
        found = f"several matrices ({some(prefixes)})" if prefixes else f"no matrix.mtx among {some(sorted(names))}"
        raise SourceError(f"{path}: a 10x folder with one matrix.mtx was expected, found {found}; give another folder")
    kinds = [["matrix.mtx", "genes.tsv", "barcodes.tsv"], ["matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"]]
    missing = [[prefixes[0] + name for name in kind if prefixes[0] + name not in names] for kind in kinds]
    if all(missing):
        raise SourceError(
            f"{path}: beside the matrix there is no {some(min(missing, key=len))}; expected are matrix.mtx, genes.tsv "
            "and barcodes.tsv, or matrix.mtx.gz, features.tsv.gz and barcodes.tsv.gz (compress plain ones with gzip)"
        )
    return prefixes[0]


def _from_10x(data: anndata.AnnData, kind: str) -> Source:
    """Keep gene expression; guides and antibodies are not genes."""
    if "feature_types" in data.var:
        is_gene = (data.var["feature_types"] == "Gene Expression").to_numpy()
        kind += "" if is_gene.all() else f", {int((~is_gene).sum())} features of other types left out"
        data = data[:, is_gene]
    return Source(sparse.csr_matrix(data.X), _plain(data.obs), _plain(data.var), logged=False, description=kind)


def _text_ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _opened(path: Path) -> TextIO:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _read_text(path: Path, options: SourceOptions) -> Source:
    """Read a table of numbers with a header and names in the first column; R's shorter header works."""
    delimiter = DELIMITERS[_text_ending(path)]
    with _readable(path, "text table", BROKEN_TEXT), _opened(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        rows = ((reader.line_num, fields) for fields in reader if fields)
        header = next(rows, (1, []))[1]
        first = list(islice(rows, 3))
        columns = _column_names(path, header, first, delimiter)
        if options.orientation is None:
            raise SourceError(
                f"{path}: say what its rows are, --genes-in-rows or --cells-in-rows; the first rows are called "
                f"{some([fields[0] for _, fields in first])}, the first columns {some(columns)}"
            )
        matrix, names = _parsed(path, chain(first, rows), columns)
    _check_row_names(path, names)
    described = f"{_text_ending(path)[1:]}, {options.orientation.replace('_', ' ')}"
    if options.orientation == "genes_in_rows":
        matrix, names, columns = sparse.csr_matrix(matrix.T), columns, names
    return Source(matrix, pd.DataFrame(index=names), pd.DataFrame(index=columns), logged=False, description=described)


def _column_names(path: Path, header: list[str], first: list[tuple[int, list[str]]], delimiter: str) -> list[str]:
    if not first:
        raise SourceError(
            f"{path} is empty: it has no row of values below its header; give a table with cells and genes"
        )
    line, fields = first[0]
    if len(fields) == 1:
        raise SourceError(
            f"{path}, line {line}: one field where fields separated by {delimiter!r} were expected "
            f"({fields[0][:40]!r}); .csv is split at commas, .tsv and .txt at tabs: rename or convert the file"
        )
    if len(header) not in (len(fields), len(fields) - 1):
        raise SourceError(_ragged(path, line, fields, len(header), "in the header"))
    return header[len(header) - len(fields) + 1 :]


def _parsed(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str]
) -> tuple[sparse.csr_matrix, list[str]]:
    """The values [rows, columns], zeros not stored, and the names of the rows."""
    names, values, indices = [], [], []
    for line, fields in rows:
        row = _numbers(path, line, fields, columns)
        filled = np.flatnonzero(row)
        names.append(fields[0])
        values.append(row[filled])
        indices.append(filled.astype(np.int32))
    indptr = np.cumsum([0, *map(len, values)])
    shape = (len(names), len(columns))
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(indices), indptr), shape=shape), names


def _numbers(path: Path, line: int, fields: list[str], columns: Sequence[str]) -> Float[np.ndarray, " columns"]:
    if len(fields) != len(columns) + 1:
        raise SourceError(_ragged(path, line, fields, len(columns) + 1, "in the lines before"))
    try:
        return np.array(list(map(float, fields[1:])))
    except ValueError:
        column, text = next(
            (column, text) for column, text in zip(columns, fields[1:], strict=True) if not _is_number(text)
        )
        raise SourceError(
            f"{path}, line {line}, row {fields[0]!r}, column {column!r}: {text!r} is not a number; write 0 for "
            "nothing seen, and keep what describes cells in a table of its own (--cells-table)"
        ) from None


def _ragged(path: Path, line: int, fields: list[str], expected: int, where: str) -> str:
    found = f"{len(fields)} fields, but {expected} {where}"
    return f"{path}, line {line}, row {fields[0]!r}: {found}; mend or remove that line"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_row_names(path: Path, names: list[str]) -> None:
    """Refuse fractions as names: the file has values in its first column. Whole numbers may be Entrez identifiers."""
    if all(map(_is_number, names)) and not all(float(name).is_integer() for name in names):
        raise SourceError(f"{path}: the first column holds {some(names)}, not names; add a first column with row names")


def _with_cells_table(source: Source, path: Path) -> Source:
    """Join the table's columns by cell name; a cell it does not know gets missing values."""
    if not path.is_file():
        raise SourceError(
            f"{path}: no such file; --cells-table takes a CSV or TSV whose first column is the cell's name"
        )
    with _readable(path, "table of cells"):
        delimiter = DELIMITERS.get(_text_ending(path), ",")
        table = pd.read_csv(path, sep=delimiter, index_col=0, converters={0: str}, low_memory=False)
    _check_cell_names(path, table.index)
    known = source.obs.index.isin(table.index)
    if not known.any():
        raise SourceError(
            f"{path}: its first column ({some(list(table.index))}) names no cell of the matrix "
            f"({some(list(source.obs.index))}); both must use the same names"
        )
    clash = table.columns.intersection(source.obs.columns)
    if len(clash):
        raise SourceError(f"{path}: the source has columns {some(list(clash))} already; rename them in the table")
    unfit = [name for name in table.columns if "/" in name or name == "_index"]
    if unfit:
        raise SourceError(f"{path}: AnnData cannot hold columns called {some(unfit)}; rename them in the table")
    described = f"{source.description}; {int(known.sum())} of {len(known)} cells are in {path.name}"
    return replace(source, obs=source.obs.join(table), description=described)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Names as text, and pandas' nullable text as plain objects, which every AnnData can hold."""
    nullable = [name for name in table.columns if isinstance(table[name].dtype, pd.StringDtype)]
    table = table.astype(dict.fromkeys(nullable, object))
    return table.set_axis(table.index.astype(str).astype(object).rename(None), axis=0)


def _canonical(path: Path, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
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


def _check_cell_names(path: Path, names: pd.Index) -> None:
    missing = _positions_without_name(names)
    if len(missing):
        raise SourceError(f"{path}: {len(missing)} cells have no name (number {_ordinals(missing)}); name every cell")
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise SourceError(
            f"{path}: {len(twice)} cell names are not unique, among them {some(list(twice))}; make them so, "
            "e.g. with the batch as prefix, or anndata's obs_names_make_unique()"
        )


def _with_gene_names(path: Path, var: pd.DataFrame, options: SourceOptions) -> pd.DataFrame:
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


def _check_values(path: Path, source: Source) -> None:
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
