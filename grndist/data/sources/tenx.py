"""Reading a folder of Cell Ranger's: matrix.mtx, features.tsv (version 2: genes.tsv) and barcodes.tsv, plain or gzip.

The matrix is text without places to jump to, so it is converted once; see `transposed`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64

from grndist.data.sources.compressed import content_of
from grndist.data.sources.matrices import beyond
from grndist.data.sources.source import SourceError, SourceOptions, Unchecked, plain, quiet, readable
from grndist.data.sources.tenx_h5 import gene_columns
from grndist.data.sources.transposed import Entries, per_bucket, transposed
from grndist.genes import some

KIND = "10x folder"
LINES = 2**18  # of the matrix, that are held at once
TYPES = {"integer": np.dtype(np.int64), "real": np.dtype(np.float64)}


def open_10x_folder(path: Path, options: SourceOptions) -> Unchecked:
    """Open a folder; names of its files may have a prefix."""
    matrix, features, barcodes = _files(path)
    with readable(path, KIND), quiet():
        var, obs = _features(features), pd.DataFrame(index=_table(barcodes)[0].to_numpy())
        header = _header(matrix)
    if header.shape != (len(var), len(obs)):
        raise SourceError(
            f"{path}: {matrix.name} is {header.shape[0]} x {header.shape[1]}, but {features.name} has {len(var)} lines "
            f"and {barcodes.name} has {len(obs)}; the three must be of one sample"
        )
    columns, described = gene_columns(var, KIND)
    shape = (len(obs), len(columns))
    entries = _MatrixText(path.absolute(), matrix.name, header, columns)
    rows = partial(
        transposed,
        path.absolute(),
        "matrix",
        per_bucket(header.n_stored / max(len(obs), 1), header.dtype),
        header.dtype,
        matrix.stat().st_size,
        entries.parts,
        shape,
    )
    return Unchecked(shape, rows, plain(obs), plain(var.iloc[columns]), False, described)


def _files(path: Path) -> tuple[Path, Path, Path]:
    """Matrix, table of features, table of barcodes."""
    names = {file.name for file in path.iterdir()}
    prefixes = sorted({name.partition("matrix.mtx")[0] for name in names if "matrix.mtx" in name})
    if len(prefixes) != 1:
        found = f"several matrices ({some(prefixes)})" if prefixes else f"no matrix.mtx among {some(sorted(names))}"
        raise SourceError(f"{path}: a 10x folder with one matrix.mtx was expected, found {found}; give another folder")
    wanted = [("matrix.mtx",), ("features.tsv", "genes.tsv"), ("barcodes.tsv",)]
    choices = [[f"{prefixes[0]}{name}{end}" for name in kind for end in (".gz", "")] for kind in wanted]
    found_names = [next((name for name in choice if name in names), None) for choice in choices]
    missing = [choice[0] for choice, name in zip(choices, found_names, strict=True) if name is None]
    if missing:
        raise SourceError(
            f"{path}: beside the matrix there is no {some(missing)}; expected are matrix.mtx, features.tsv (or "
            "genes.tsv) and barcodes.tsv, each plain or as .gz"
        )
    matrix, features, barcodes = (path / str(name) for name in found_names)
    return matrix, features, barcodes


def _table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, header=None, sep="\t", dtype=str, keep_default_na=False)


def _features(file: Path) -> pd.DataFrame:
    """Columns called as scanpy calls them."""
    table = _table(file)
    var = pd.DataFrame({"gene_ids": table[0].to_numpy()}, index=table[1].to_numpy())
    return var.assign(feature_types=table[2].to_numpy()) if "features.tsv" in file.name else var


@dataclass(frozen=True)
class _Header:
    """What stands above the entries."""

    shape: tuple[int, int]  # features, barcodes
    n_stored: int
    dtype: np.dtype


@dataclass(frozen=True)
class _MatrixText:
    """The entries of the matrix, features that are not genes left out."""

    path: Path
    matrix: str
    header: _Header
    columns: Int64[np.ndarray, " genes"]

    def parts(self) -> Iterator[Entries]:
        """All entries in the order of the file, which is by cells as Cell Ranger writes it."""
        place = np.full(self.header.shape[0], -1)
        place[self.columns] = np.arange(len(self.columns))
        read = 0
        with readable(self.path, KIND), content_of(self.path / self.matrix) as (file, raw):
            _read_header(self.path / self.matrix, file)
            for table in _lines(file, self.header.dtype):
                features, cells = table[0].to_numpy() - 1, table[1].to_numpy() - 1
                self._check(features, cells, read)
                read += len(table)
                genes = place[features]
                kept = np.flatnonzero(genes >= 0)
                yield Entries(cells[kept], genes[kept], table[2].to_numpy()[kept], raw.tell())
        if read != self.header.n_stored:
            raise SourceError(
                f"{self.path}: {self.matrix} has {read} entries where its header says {self.header.n_stored}: it ends "
                "early or was changed; download or write it again"
            )

    def _check(self, features: Int64[np.ndarray, " lines"], cells: Int64[np.ndarray, " lines"], read: int) -> None:
        for what, numbers, length in (
            ("feature", features, self.header.shape[0]),
            ("barcode", cells, self.header.shape[1]),
        ):
            outside = beyond(numbers, length)
            if outside is not None:
                raise SourceError(
                    f"{self.path}: {self.matrix} is damaged: entries {read + 1} to {read + len(numbers)} name {what} "
                    f"{outside + 1} of {length}; download or write it again"
                )


def _lines(file: BufferedReader, dtype: np.dtype) -> Iterator[pd.DataFrame]:
    """The rest of the file in pieces of columns feature, barcode, value."""
    types = {0: np.int64, 1: np.int64, 2: dtype}
    try:
        with pd.read_csv(
            file, sep=r"\s+", header=None, names=[0, 1, 2], dtype=types, na_filter=False, chunksize=LINES
        ) as tables:
            yield from tables
    except pd.errors.EmptyDataError:  # no entry at all
        return


def _header(matrix: Path) -> _Header:
    with content_of(matrix) as (file, _):
        return _read_header(matrix, file)


def _read_header(matrix: Path, file: BufferedReader) -> _Header:
    """Read up to the entries."""
    banner = file.readline().decode("ascii", "replace").lower().split()
    if banner[:3] != ["%%matrixmarket", "matrix", "coordinate"] or banner[4:] != ["general"] or banner[3] not in TYPES:
        raise SourceError(
            f"{matrix}: its first line is {' '.join(banner)[:80]!r}; '%%MatrixMarket matrix coordinate integer "
            "general' (or real) was expected: write it again, e.g. with scipy.io.mmwrite"
        )
    sizes = next((line.split() for line in file if line.strip() and not line.startswith(b"%")), [])
    features, barcodes, n_stored = map(int, sizes)
    return _Header((features, barcodes), n_stored, TYPES[banner[3]])
