"""Reading CSV and TSV, plain or gzip, with every number exact and every mistake named by line, row and column.

Text has no places to jump to, so it is converted once; see `transposed`.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from grndist.data.sources.compressed import content_of
from grndist.data.sources.source import BROKEN_TEXT, SourceError, SourceOptions, Unchecked, readable
from grndist.data.sources.transposed import BucketRows, Entries, in_buckets, per_bucket
from grndist.files import write_whole
from grndist.genes import some

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
VALUES = np.dtype(np.float64)
LIKELY_GENES = 2**15  # of a table with genes in rows, before all of them were read
Lines = Iterator[tuple[int, list[str]]]


def open_text(path: Path, options: SourceOptions, work: Path) -> Unchecked:
    """Open a table of numbers with a header and names in the first column; R's shorter header works.

    The table is read through here, since only its end tells how many rows there are.
    """
    columns = _checked_columns(path, options)
    genes_in_rows = options.orientation == "genes_in_rows"
    wide = LIKELY_GENES if genes_in_rows else len(columns)
    names_file = work / "row_names.json"
    parts = partial(_parts, path, columns, genes_in_rows, names_file)
    total = path.stat().st_size
    name = str(options.orientation)
    buckets = in_buckets(path.absolute(), name, per_bucket(float(wide), VALUES), VALUES, total, parts, work)
    names = json.loads(names_file.read_text())
    cells, genes = (columns, names) if genes_in_rows else (names, columns)
    rows = BucketRows(buckets, (len(cells), len(genes)))
    obs, var = pd.DataFrame(index=cells), pd.DataFrame(index=genes)
    described = f"{text_ending(path)[1:]}, {name.replace('_', ' ')}"
    return Unchecked(rows.shape, lambda work: rows, obs, var, False, described)


def text_ending(path: Path) -> str:
    """The ending before .gz, in small letters: `.csv` of `Data.CSV.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


@contextmanager
def _opened(path: Path, delimiter: str) -> Iterator[tuple[Lines, BufferedReader]]:
    """Lines that are not empty, with their numbers, and the file as it is on the disk, which knows how far one is."""
    with readable(path, "text table", BROKEN_TEXT), content_of(path) as (content, raw):
        reader = csv.reader(TextIOWrapper(content, encoding="utf-8-sig", newline=""), delimiter=delimiter)
        yield ((reader.line_num, fields) for fields in reader if fields), raw


def _checked_columns(path: Path, options: SourceOptions) -> list[str]:
    """Names of the columns of values."""
    delimiter = DELIMITERS[text_ending(path)]
    with _opened(path, delimiter) as (rows, _):
        header = next(rows, (1, []))[1]
        first = list(islice(rows, 3))
    columns = _column_names(path, header, first, delimiter)
    if options.orientation is None:
        raise SourceError(
            f"{path}: say what its rows are, --genes-in-rows or --cells-in-rows; the first rows are called "
            f"{some([fields[0] for _, fields in first])}, the first columns {some(columns)}"
        )
    return columns


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


def _parts(path: Path, columns: Sequence[str], genes_in_rows: bool, names_file: Path) -> Iterator[Entries]:
    """The values of each row that are not zero; the names of all rows are left in `names_file` at the end."""
    names: list[str] = []
    with _opened(path, DELIMITERS[text_ending(path)]) as (rows, raw):
        next(rows)  # the header
        for line, fields in rows:
            values = _numbers(path, line, fields, columns)
            filled = np.flatnonzero(values)
            own = np.full(len(filled), len(names))
            names.append(fields[0])
            cells, genes = (filled, own) if genes_in_rows else (own, filled)
            yield Entries(cells, genes, values[filled], raw.tell())
    _check_row_names(path, names)
    write_whole(names_file, [json.dumps(names).encode()])


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
