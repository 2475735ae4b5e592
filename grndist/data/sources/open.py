"""From a path to a checked source: choose the reader, check names, give access to rows."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from grndist.data.sources.annotated import open_zarr
from grndist.data.sources.beeline import EXPRESSION, PSEUDOTIME, is_beeline, open_beeline
from grndist.data.sources.cells_table import check_table_within_reach, with_cells_table
from grndist.data.sources.checks import check_cell_names, check_shape, checked, with_gene_names
from grndist.data.sources.container import is_zarr
from grndist.data.sources.hdf5 import open_hdf5
from grndist.data.sources.source import Source, SourceError, SourceOptions, Unchecked, UnreadableError
from grndist.data.sources.tenx import open_10x_folder
from grndist.data.sources.text import DELIMITERS, open_text, text_ending

HDF5_ENDINGS = (".h5ad", ".h5", ".hdf5")


def check_within_reach(paths: Sequence[Path], options: SourceOptions) -> None:
    """Refuse sources, or a table of cells, that are not there; call it before what is kept of them is compared.

    Raises:
        UnreadableError: missing, or without permission.
        SourceError: an unknown kind of file.
    """
    for path in paths:
        _reader(path)
    if options.cells_table is not None:
        check_table_within_reach(options.cells_table)


def open_source(path: Path, options: SourceOptions, work: Path) -> Source:
    """Open `path`, a file or a folder, and check what can be checked without reading its values.

    A matrix that cannot be read by rows (CSC, a 10x folder, CSV, TSV) is first converted, with a progress bar; a
    conversion that is found finished in `work` is used again.

    Args:
        path: h5ad, 10x h5, CSV or TSV; or the folder of an AnnData Zarr, of 10x or of BEELINE.
        options: which matrix and names.
        work: an existing folder for this source alone; the rows need it, and the caller removes it.

    Raises:
        SourceError: missing, unknown or damaged file; an option that does not fit it; no cell or gene; a name missing
            or twice.
        WriteError: `work` is on a disk that is full.
    """
    reader = _reader(path)
    _refuse_misplaced(path, reader, options)
    found = reader(path, options, work) if reader in (open_text, open_beeline) else reader(path, options)
    check_shape(path, found.shape)
    check_cell_names(path, found.obs.index)
    var = with_gene_names(path, found.var, options)
    rows = checked(path, found.rows(work), found.obs, var, work)
    source = Source(path, rows, found.obs, var, found.logged, found.description)
    return source if options.cells_table is None else with_cells_table(source, options.cells_table)


def source_digest(path: Path) -> str:
    """Sha256 of a file; of a folder, that of the lines `sha256sum` prints for its files.

    Of a Zarr folder these are all files in order of their keys, of a 10x folder the matrix and its tables, of BEELINE's
    the expression and the table of cells.
    """
    if path.is_dir():
        zarr = is_zarr(path)
        files = [file for file in (path.rglob("*") if zarr else path.iterdir()) if file.is_file()]
        keys = sorted(file.relative_to(path).as_posix() for file in files)
        if not zarr:
            beeline = is_beeline(path)
            keys = [
                key for key in keys if (key in (EXPRESSION, PSEUDOTIME) if beeline else ".mtx" in key or ".tsv" in key)
            ]
        lines = [f"{source_digest(path / key)}  {key}\n" for key in keys]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reader(path: Path) -> Callable[..., Unchecked]:
    if not path.exists():
        raise UnreadableError(f"{path}: no such file or folder; give the path of an h5ad, 10x, CSV, TSV or Zarr source")
    if not os.access(path, os.R_OK):
        raise UnreadableError(f"{path} may not be read by you; change its permissions (chmod +r)")
    if path.is_dir():
        return open_zarr if is_zarr(path) else open_beeline if is_beeline(path) else open_10x_folder
    if path.suffix.lower() in HDF5_ENDINGS:
        return open_hdf5
    if text_ending(path) in DELIMITERS:
        return open_text
    raise SourceError(
        f"{path}: unknown kind of file {path.suffix!r}; known are .h5ad, .h5 (10x), .csv, .tsv, .txt, plain or .gz, "
        "and folders: a 10x folder with matrix.mtx, BEELINE's with ExpressionData.csv, an AnnData .zarr"
    )


def _refuse_misplaced(path: Path, reader: Callable[..., Unchecked], options: SourceOptions) -> None:
    """An option without effect is a misunderstanding."""
    if options.layer is not None and options.raw:
        raise SourceError(f"{path}: --layer {options.layer} and --raw exclude each other; give one of them")
    if reader not in (open_hdf5, open_zarr) and (options.raw or options.layer is not None):
        raise SourceError(f"{path}: --layer and --raw are for h5ad files and AnnData Zarr; leave them out here")
    if reader is not open_text and options.orientation is not None:
        raise SourceError(f"{path}: --genes-in-rows and --cells-in-rows are for CSV and TSV; leave them out here")
