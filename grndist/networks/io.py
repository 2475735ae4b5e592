"""Edge lists on disk: Parquet keeps everything, TSV and CSV keep the three columns; other tools' tables are read too.

What each tool calls its columns is known only here and in `evaluation.references`.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grndist.errors import UserError
from grndist.files import written_aside
from grndist.genes import some
from grndist.networks.edges import COLUMNS, EdgeList, edge_list

# ours · arboreto · BEELINE · DAZZLE and networkx; compared in lower case, the first that is there wins
REGULATOR_NAMES = ("regulator", "tf", "gene1", "source")
TARGET_NAMES = ("target", "gene2")
WEIGHT_NAMES = ("weight", "importance", "edgeweight")

SEPARATORS = {".tsv": "\t", ".csv": ","}
PARQUET = ".parquet"
ENDINGS = f"{PARQUET}, .tsv, .csv, .tsv.gz or .csv.gz"
RANKED_EDGES, BEELINE_COLUMNS = "rankedEdges.csv", ("Gene1", "Gene2", "EdgeWeight")
METADATA = b"grndist"
ROWS_PER_GROUP = 1_000_000

logger = logging.getLogger(__name__)


class EdgeFileError(UserError):
    """A file is not the edge list or table it should be."""


def write_edges(edges: EdgeList, path: Path, overwrite: bool = False) -> None:
    """Write `edges` by the ending of `path`: .parquet, or .tsv and .csv, plain or .gz.

    A file called rankedEdges.csv is BEELINE's: separated by tabs, with the columns Gene1, Gene2 and EdgeWeight.

    Parquet (zstd) also carries genes, signed and origin, so that reading gives the same `EdgeList`; it is written in
    row groups of a million edges, so memory grows by about 150 MB, whatever the length of the list.

    Raises:
        EdgeFileError: another ending.
        UserError: `path` exists and `overwrite` is false, or its folder does not.
    """
    ending = table_ending(path)
    with written_aside(path, overwrite) as aside:
        if ending == PARQUET:
            _write_parquet(edges, aside)
        elif path.name == RANKED_EDGES:
            write_text(edges.table[COLUMNS].set_axis(list(BEELINE_COLUMNS), axis=1), aside, "\t")
        else:
            write_text(edges.table[COLUMNS], aside, SEPARATORS[ending])


def _write_parquet(edges: EdgeList, path: Path) -> None:
    about = {"genes": list(edges.genes), "signed": edges.signed, "origin": dict(edges.origin)}
    fields = [("regulator", pa.string()), ("target", pa.string()), ("weight", pa.float64())]
    schema = pa.schema(fields, metadata={METADATA: json.dumps(about).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(edges), ROWS_PER_GROUP):
            group = edges.table.iloc[start : start + ROWS_PER_GROUP]
            writer.write_table(pa.Table.from_pandas(group[COLUMNS], schema=schema, preserve_index=False))


def write_text(table: pd.DataFrame, path: Path, separator: str) -> None:
    """Write a table as text, gzipped if `path` ends in .gz: the same table gives the same bytes."""
    # neither name nor time in the gzip header
    gzipped = path.suffix.lower() == ".gz"
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) if gzipped else nullcontext(file) as sink:
        table.to_csv(sink, sep=separator, index=False, mode="wb", lineterminator="\n")


def read_edges(path: Path) -> EdgeList:
    """Read an edge list of ours or of another tool (arboreto, BEELINE, DAZZLE, any source/target/weight table).

    Self-loops are dropped and of duplicates the largest |weight| is kept (of +w and -w, +w); both are logged with their
    count. A file that does not say whether signs mean anything is signed when a weight is negative.

    Raises:
        EdgeFileError: the file is missing, not a table, empty, lacks a column, or a name or weight in it is not one.
    """
    if table_ending(path) == PARQUET:
        stored = read_parquet(path)
        about = (stored.schema.metadata or {}).get(METADATA)
        table = _with_our_columns(stored.to_pandas(), path)
        if about is not None:  # written from an EdgeList: sorted and unique already
            fields = json.loads(about)
            return EdgeList(table, tuple(fields["genes"]), fields["signed"], fields["origin"])
    else:
        table = _with_our_columns(named_by_first_row(read_rows(path)), path)
    return _clean(table, path)


def _clean(table: pd.DataFrame, path: Path) -> EdgeList:
    loops = table["regulator"] == table["target"]
    edges = table[~loops]
    strongest_first = edges.assign(strength=edges["weight"].abs()).sort_values(["strength", "weight"], ascending=False)
    unique = strongest_first.drop_duplicates(["regulator", "target"])
    merged = len(edges) - len(unique)
    if loops.any() or merged:
        logger.warning("%s: dropped %d self-loops and %d duplicate edges", path, int(loops.sum()), merged)
    if unique.empty:
        raise EdgeFileError(f"{path} holds only self-loops; an edge needs a regulator and another gene as its target")
    signed = bool((unique["weight"] < 0).any())
    regulators, targets = unique["regulator"].tolist(), unique["target"].tolist()
    return edge_list(regulators, targets, unique["weight"].to_numpy(), signed=signed)


def _with_our_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The columns regulator, target (str) and weight (float64) of a table with anyone's column names."""
    aliases = zip(COLUMNS, [REGULATOR_NAMES, TARGET_NAMES, WEIGHT_NAMES], strict=True)
    positions = {ours: find_column(table.columns, names) for ours, names in aliases}
    missing = [ours for ours, position in positions.items() if position is None]
    if missing:
        raise EdgeFileError(
            f"{path} has no column for {' and '.join(missing)}; its columns are {some(list(table.columns), 10)}. "
            "Expected regulator, target, weight (or Gene1, Gene2, EdgeWeight; TF, target, importance; "
            "Source, Target, EdgeWeight)"
        )
    if table.empty:
        raise EdgeFileError(f"{path} has no rows; an edge list needs at least one edge")
    regulator, target, weight = (table.iloc[:, position] for position in positions.values())
    names = gene_names(regulator, target, path)
    return names.assign(weight=_weights(weight, names, path))


def gene_names(regulators: pd.Series, targets: pd.Series, path: Path) -> pd.DataFrame:
    """The columns regulator and target as strings.

    Raises:
        EdgeFileError: a name is missing (the row is named; the first row below a header is row 1).
    """
    names = pd.DataFrame({"regulator": regulators, "target": targets})
    blank = (names.isna() | (names == "")).any(axis=1).to_numpy()
    if blank.any():
        row = int(np.flatnonzero(blank)[0])
        raise EdgeFileError(
            f"{path}, row {row + 1}: a gene name is missing ({names.iloc[row].tolist()}); "
            "every edge needs two names: complete or delete the row"
        )
    # pandas keeps strings as they are and writes integer names without a decimal point
    return names.astype(str).astype(object)


def _weights(values: pd.Series, names: pd.DataFrame, path: Path) -> np.ndarray:
    try:
        weights = values.to_numpy().astype(np.float64)  # on strings this is float(), which reads back every digit
    except (TypeError, ValueError):
        weights = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(weights))
    if len(bad):
        row = int(bad[0])
        raise EdgeFileError(
            f"{path}, row {row + 1} ({names['regulator'][row]} -> {names['target'][row]}): "
            f"the weight {values.iloc[row]!r} is not a finite number ({len(bad)} such rows); correct or delete them"
        )
    return weights


def find_column(columns: Iterable[object], names: Iterable[str]) -> int | None:
    """Position in `columns` of the first of `names` that is there, whatever its case; None if none is."""
    lower = [str(column).strip().lower() for column in columns]
    return next((lower.index(name) for name in names if name in lower), None)


def table_ending(path: Path) -> str:
    """The kind of table `path` is by its name: .parquet, .tsv or .csv (.gz is looked through, .txt is a .tsv).

    Raises:
        EdgeFileError: any other ending.
    """
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix.replace(".txt", ".tsv")
    if ending in SEPARATORS or name.endswith(PARQUET):
        return ending
    raise EdgeFileError(f"{path}: the ending {path.suffix!r} is not one of a table; use {ENDINGS}")


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        EdgeFileError: it is missing or not Parquet.
    """
    _refuse_no_file(path)
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise EdgeFileError(
            f"{path} is not a Parquet file ({error}); write it again, or name it by its format"
        ) from None


def read_rows(path: Path) -> pd.DataFrame:
    """Every row of a text table as strings, a header included; columns are numbered.

    The separator is a tab if the first line has one, else a comma: BEELINE's own rankedEdges.csv has tabs.

    Raises:
        EdgeFileError: the file is missing, empty or not a table.
    """
    _refuse_no_file(path)
    compression = "gzip" if path.suffix.lower() == ".gz" else None
    options = {"header": None, "dtype": str, "na_filter": False, "encoding": "utf-8-sig", "compression": compression}
    try:
        return pd.read_csv(path, sep=_separator(path), **options)
    except pd.errors.EmptyDataError:
        raise EdgeFileError(f"{path} is empty; a table with one edge per line was expected") from None
    except (pd.errors.ParserError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise EdgeFileError(
            f"{path} is not a table ({str(error).strip()}); expected one edge per line, the same number of columns in "
            "each, separated by tabs or commas"
        ) from None


def _separator(path: Path) -> str:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        return "\t" if b"\t" in file.readline() else ","


def named_by_first_row(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the first one as header."""
    return rows.iloc[1:].set_axis(rows.iloc[0].tolist(), axis=1).reset_index(drop=True)


def _refuse_no_file(path: Path) -> None:
    if not path.exists():
        raise EdgeFileError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise EdgeFileError(f"{path} is a directory; give the path of one table ({ENDINGS})")
