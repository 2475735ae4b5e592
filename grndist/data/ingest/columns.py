"""The columns that a store writes itself, and what becomes of a source's own columns of the same names."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

PREFIX = "source_"
OWN = ("source_row", "source_file")  # the store's, though they are called like those that are kept
CLOSE = 1e-6  # relative; a source may have kept its numbers in float32


def with_columns(table: pd.DataFrame, columns: Mapping[str, np.ndarray | pd.Categorical]) -> pd.DataFrame:
    """The table with `columns`; one it had of such a name is kept as `source_NAME` if it says something else."""
    names = set(table.columns)
    kept = {}
    for name, values in columns.items():
        if name in names and not _same(np.asarray(table[name]), np.asarray(values)):
            kept[name] = _free(name, names)
            names.add(kept[name])
    table = table.copy(deep=False)  # tables of millions of cells are large
    table.columns = [kept.get(name, name) for name in table.columns]
    for name, values in columns.items():
        table[name] = values
    return table


def kept_columns(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Columns of a store that are a source's own under another name."""
    known = {*before, *OWN}
    return [name for name in after if name.startswith(PREFIX) and name not in known]


def _free(name: str, names: set[str]) -> str:
    while name in names:
        name = PREFIX + name
    return name


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    kinds = one.dtype.kind + other.dtype.kind
    if set(kinds) <= set("biuf"):
        return np.allclose(one, other, rtol=CLOSE, atol=0) if "f" in kinds else np.array_equal(one, other)
    return all(str(a) == str(b) for a, b in zip(one, other, strict=True))
