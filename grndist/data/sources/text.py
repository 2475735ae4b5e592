"""Reading CSV and TSV, plain or gzip, with every number exact and every mistake named by line, row and column."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import sparse

from grndist.data.sources.source import BROKEN_TEXT, Source, SourceError, SourceOptions, readable
from grndist.genes import some

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}


def read_text(path: Path, options: SourceOptions) -> Source:
    """Read a table of numbers with a header and names in the first column; R's shorter header works."""
    delimiter = DELIMITERS[text_ending(path)]
    with readable(path, "text table", BROKEN_TEXT), _opened(path) as file:
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
    described = f"{text_ending(path)[1:]}, {options.orientation.replace('_', ' ')}"
    if options.orientation == "genes_in_rows":
        matrix, names, columns = sparse.csr_matrix(matrix.T), columns, names
    return Source(matrix, pd.DataFrame(index=names), pd.DataFrame(index=columns), logged=False, description=described)


def text_ending(path: Path) -> str:
    """The ending before .gz, in small letters: `.csv` of `Data.CSV.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _opened(path: Path) -> TextIOWrapper:
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


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
