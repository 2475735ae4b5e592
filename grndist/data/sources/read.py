"""From a path to a checked source: choose the reader, read, check."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from grndist.data.sources.cells_table import with_cells_table
from grndist.data.sources.checks import canonical, check_cell_names, check_values, with_gene_names
from grndist.data.sources.hdf5 import read_hdf5
from grndist.data.sources.source import Source, SourceError, SourceOptions
from grndist.data.sources.tenx import read_10x_folder
from grndist.data.sources.text import DELIMITERS, read_text, text_ending

HDF5_ENDINGS = (".h5ad", ".h5", ".hdf5")


def read_source(path: Path, options: SourceOptions) -> Source:
    """Read `path`, a file or a 10x folder, and check it.

    Raises:
        SourceError: missing, unknown or damaged file; an option that does not fit it; no cell, gene or
            non-zero value; a value that is missing, infinite or negative; a name missing or twice.
    """
    read = _reader(path)
    _refuse_misplaced(path, read, options)
    source = read(path, options)
    source = replace(source, matrix=canonical(path, source.matrix))
    check_cell_names(path, source.obs.index)
    source = replace(source, var=with_gene_names(path, source.var, options))
    check_values(path, source)
    return source if options.cells_table is None else with_cells_table(source, options.cells_table)


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
        return read_10x_folder
    if path.suffix.lower() in HDF5_ENDINGS:
        return read_hdf5
    if text_ending(path) in DELIMITERS:
        return read_text
    raise SourceError(
        f"{path}: unknown kind of file {path.suffix!r}; known are .h5ad, .h5 (10x), a 10x folder with matrix.mtx, "
        "and .csv, .tsv, .txt, plain or .gz"
    )


def _refuse_misplaced(path: Path, read: Callable[..., Source], options: SourceOptions) -> None:
    """An option without effect is a misunderstanding."""
    if options.layer is not None and options.raw:
        raise SourceError(f"{path}: --layer {options.layer} and --raw exclude each other; give one of them")
    if read is not read_hdf5 and (options.raw or options.layer is not None):
        raise SourceError(f"{path}: --layer and --raw are for h5ad files; leave them out here")
    if read is not read_text and options.orientation is not None:
        raise SourceError(f"{path}: --genes-in-rows and --cells-in-rows are for CSV and TSV; leave them out here")
