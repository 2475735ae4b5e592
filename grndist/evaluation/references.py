"""Reference networks: the edges that a ranking is compared with, in the formats they are published in.

Nothing here knows of predicted edges or of a gene panel; `evaluate` puts them together.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int8

from grndist.evaluation.published import Pairs, inside, published
from grndist.genes import some
from grndist.networks.io import (
    PARQUET,
    REGULATOR_NAMES,
    TARGET_NAMES,
    EdgeFileError,
    find_column,
    gene_names,
    named_by_first_row,
    read_parquet,
    read_rows,
    table_ending,
)

# how a reference is said to have directions or none, whatever its format says
DIRECTED, UNDIRECTED = "directed:", "undirected:"
NAMELESS = ("network", "net", "bl--network", "groundtruthnetwork", "refnetwork", "reference")  # the folder's says more

# headers of plain pairs, in which the first gene is not said to regulate the second
PAIR_HEADERS = [
    ("gene_a", "gene_b"),
    ("genea", "geneb"),
    ("protein1", "protein2"),
    ("node1", "node2"),
    ("ligand_gene_symbol", "receptor_gene_symbol"),  # CellTalkDB
]
SIGN_COLUMNS = ("sign", "mor", "type", "effect")  # ours · DoRothEA · BEELINE
SIGNS = {"+": 1, "-": -1, "activation": 1, "repression": -1, "unknown": 0, "?": 0, "+-": 0, "-+": 0, "": 0}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """A network to compare with: no self-edges, every ordered pair at most once.

    `table` has the columns regulator, target (str) and, where the source has signs, sign (+1 activates, -1 represses,
    0 unknown or both). `names_regulators` says whether the first gene is a regulator, by the format's own account or
    because it was said so; if not, an edge is a pair without direction.
    """

    table: pd.DataFrame
    names_regulators: bool
    path: Path
    dropped_self: int = 0
    dropped_duplicates: int = 0

    def __len__(self) -> int:
        return len(self.table)


def named_reference(where: str) -> tuple[str, Reference]:
    """A short name for a reference and the reference at `where`: a path, with directed: or undirected: before it.

    The name is the file's up to its first dot, or its folder's where that says more (`STRING/BL--network.csv`).
    """
    path = Path(where.removeprefix(DIRECTED).removeprefix(UNDIRECTED))
    reference = read_reference(path)
    if where.startswith((DIRECTED, UNDIRECTED)):
        reference = replace(reference, names_regulators=where.startswith(DIRECTED))
    name = path.name.split(".")[0]
    return (path.absolute().parent.name if name.lower() in NAMELESS else name) or str(path), reference


def named_references(wheres: Sequence[str]) -> dict[str, Reference]:
    """References by their short names; those that share one are called by their paths.

    Raises:
        EdgeFileError: one is given twice, or cannot be read.
    """
    twice = sorted({where for where in wheres if wheres.count(where) > 1})
    if twice:
        raise EdgeFileError(f"{twice[0]} is given twice; name every reference once")
    found = [named_reference(where) for where in wheres]
    names = [name for name, _ in found]
    return {
        where if names.count(name) > 1 else name: reference
        for where, (name, reference) in zip(wheres, found, strict=True)
    }


def read_reference(path: Path) -> Reference:
    """Read a reference network from .csv, .tsv, .txt (plain or .gz) or .parquet, or a folder of one.

    Formats: ours (regulator, target[, weight]), BEELINE (Gene1, Gene2[, Type]), DoRothEA (tf, confidence, target, mor;
    all confidence levels), TRRUST and RegulonDB (no header; regulator, target, sign), CellTalkDB, CORUM, STRING and
    ChIP-Atlas (`published`), and two columns with or without a header. A folder is one of BEELINE's, with its network,
    or one of ChIP-Atlas' tables. A two-column file whose header is not a known one reads as an edge between two unknown
    genes, which evaluation drops and counts. Self-edges and duplicates are dropped with a count; a pair listed as
    activating and as repressing has the sign 0. Weights are signs only where one of them is negative.

    Raises:
        EdgeFileError: the file is missing, empty, has one column or columns with unknown names.
    """
    if path.is_dir():
        files = inside(path)
        return _published(_together(files), path) if len(files) > 1 else read_reference(files[0])
    if table_ending(path) == PARQUET:
        named = read_parquet(path).to_pandas()
    else:
        pairs = published(path)
        if pairs is not None:
            return _published(pairs, path)
        rows = read_rows(path)
        if _pair_in(rows.iloc[0]) is None:
            return _without_header(rows, path)
        named = named_by_first_row(rows)
    return _with_header(named, path)


def _together(files: Sequence[Path]) -> Pairs:
    each = [pairs for pairs in map(published, files) if pairs is not None]
    regulators, targets = [pairs.regulators for pairs in each], [pairs.targets for pairs in each]
    return Pairs(pd.concat(regulators, ignore_index=True), pd.concat(targets, ignore_index=True), each[0].is_directed)


def _published(pairs: Pairs, path: Path) -> Reference:
    return _reference(pairs.regulators, pairs.targets, None, pairs.is_directed, path)


def _with_header(table: pd.DataFrame, path: Path) -> Reference:
    pair = _pair_in(table.columns)
    if pair is None:
        raise _unknown_columns(table.columns, path)
    regulator, target, names_regulators = pair
    signs = _signs_of(table, path)
    return _reference(table.iloc[:, regulator], table.iloc[:, target], signs, names_regulators, path)


def _without_header(rows: pd.DataFrame, path: Path) -> Reference:
    if rows.shape[1] == 2:
        return _reference(rows[0], rows[1], None, False, path)
    if rows.shape[1] > 2 and rows[2].str.lower().isin(SIGNS.keys()).all():
        return _reference(rows[0], rows[1], _as_signs(rows[2]), True, path)
    raise _unknown_columns(rows.iloc[0], path)


def _pair_in(columns: Iterable[object]) -> tuple[int, int, bool] | None:
    """Positions of the columns that hold regulator and target, and whether the first one names regulators."""
    regulator, target = find_column(columns, REGULATOR_NAMES), find_column(columns, TARGET_NAMES)
    if regulator is not None and target is not None:
        return regulator, target, True
    for first, second in PAIR_HEADERS:
        one, other = find_column(columns, [first]), find_column(columns, [second])
        if one is not None and other is not None:
            return one, other, False
    return None


def _unknown_columns(columns: Iterable[object], path: Path) -> EdgeFileError:
    names = [str(name) for name in columns]
    expected = "regulator,target; Gene1,Gene2[,Type]; tf,target[,mor]; or two columns of genes"
    if len(names) == 1:
        return EdgeFileError(f"{path} has one column ({names[0]!r}); a network needs two genes per line: {expected}")
    return EdgeFileError(
        f"{path}: none of its {len(names)} columns ({some(names, 5)}) are called regulator and target; "
        f"expected {expected}. Name the two columns in a header line"
    )


def _signs_of(table: pd.DataFrame, path: Path) -> Int8[np.ndarray, " edges"] | None:
    column = find_column(table.columns, SIGN_COLUMNS)
    if column is not None:
        signs = _as_signs(table.iloc[:, column])
        if signs is None:
            name = table.columns[column]
            logger.warning("%s: the values of column %r are not signs; the network is read as unsigned", path, name)
        return signs
    weight = find_column(table.columns, ["weight"])
    signs = None if weight is None else _as_signs(table.iloc[:, weight])
    return signs if signs is not None and (signs < 0).any() else None


def _as_signs(values: pd.Series) -> Int8[np.ndarray, " edges"] | None:
    """+1, -1 or 0 for words ("+", "Repression", ...) or numbers; None if any value is neither."""
    words = values.astype(str).str.lower().map(SIGNS)
    signs = words.fillna(np.sign(pd.to_numeric(values, errors="coerce")))
    return None if signs.isna().any() else signs.to_numpy(np.int8)


def _reference(
    regulators: pd.Series,
    targets: pd.Series,
    signs: Int8[np.ndarray, " edges"] | None,
    names_regulators: bool,
    path: Path,
) -> Reference:
    table = gene_names(regulators, targets, path)
    if signs is not None:
        table["sign"] = signs
    edges = table[table["regulator"] != table["target"]]
    if edges.empty:
        raise EdgeFileError(f"{path} holds no edge between two different genes; a reference network needs at least one")
    unique = edges.drop_duplicates(["regulator", "target"]) if signs is None else _merge_signs(edges)
    dropped_self, dropped_duplicates = len(table) - len(edges), len(edges) - len(unique)
    if dropped_self or dropped_duplicates:
        logger.warning("%s: dropped %d self-edges and %d duplicates", path, dropped_self, dropped_duplicates)
    return Reference(unique.reset_index(drop=True), names_regulators, path, dropped_self, dropped_duplicates)


def _merge_signs(edges: pd.DataFrame) -> pd.DataFrame:
    """Every pair once, in order of first appearance; its sign is 0 where its rows contradict each other."""
    signs = edges.groupby(["regulator", "target"], sort=False)["sign"].agg(["min", "max"])
    merged = (signs["max"] > 0).astype(np.int8) - (signs["min"] < 0).astype(np.int8)
    return merged.rename("sign").reset_index()
