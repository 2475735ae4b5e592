"""BEELINE's folder of one data set: ExpressionData.csv, genes in rows, and PseudoTime.csv, what is known of each cell.

Its network (GroundTruthNetwork.csv or refNetwork.csv) is a reference; `evaluation` reads it.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from grndist.data.sources.source import SourceOptions, Unchecked, quiet, readable
from grndist.data.sources.text import open_text

EXPRESSION, PSEUDOTIME = "ExpressionData.csv", "PseudoTime.csv"


def is_beeline(folder: Path) -> bool:
    """Whether a folder is one of BEELINE's."""
    return (folder / EXPRESSION).is_file()


def open_beeline(path: Path, options: SourceOptions, work: Path) -> Unchecked:
    """Open such a folder; columns of PseudoTime.csv are joined by cell, missing (NA) where a cell is on no branch."""
    found = open_text(path / EXPRESSION, options.model_copy(update={"orientation": "genes_in_rows"}), work)
    table, described = found.obs, f"BEELINE folder, {EXPRESSION}"
    if (path / PSEUDOTIME).is_file():
        with readable(path / PSEUDOTIME, "table of cells"), quiet():
            times = pd.read_csv(path / PSEUDOTIME, index_col=0, converters={0: str})
            table, described = table.join(times[~times.index.duplicated()]), f"{described} and {PSEUDOTIME}"
    return replace(found, obs=table, description=described)
