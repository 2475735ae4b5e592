"""A table of what is known of each cell, kept beside a matrix that has no room for it."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from grndist.data.sources.checks import check_cell_names
from grndist.data.sources.source import Source, SourceError, UnreadableError, quiet, readable
from grndist.data.sources.text import DELIMITERS, text_ending
from grndist.genes import some


def check_table_within_reach(path: Path) -> None:
    """Refuse a table that is not there."""
    if not path.is_file():
        raise UnreadableError(
            f"{path}: no such file; --cells-table takes a CSV or TSV whose first column is the cell's name"
        )


def with_cells_table(source: Source, path: Path) -> Source:
    """Join the table's columns by cell name; a cell it does not know gets missing values."""
    check_table_within_reach(path)
    with readable(path, "table of cells"), quiet():
        delimiter = DELIMITERS.get(text_ending(path), ",")
        table = pd.read_csv(path, sep=delimiter, index_col=0, converters={0: str}, low_memory=False)
    check_cell_names(path, table.index)
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
