"""The pairs of genes that a reference could have been right or wrong about."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped


@dataclass(frozen=True)
class Candidates:
    """Every ordered pair of one of `regulators` and another one of `genes`; vectors over them are row by row."""

    universe: str
    regulators: pd.Index
    genes: pd.Index
    allowed: Bool[np.ndarray, "regulators targets"]  # not a gene with itself

    def place(self, pairs: pd.DataFrame, values: Shaped[np.ndarray, " pairs"]) -> Shaped[np.ndarray, " edges"]:
        """The value of every candidate, 0 where `pairs` lacks it."""
        rows, columns, inside = self._locate(pairs)
        dense = np.zeros(self.allowed.shape, dtype=values.dtype)
        dense[rows[inside], columns[inside]] = values[inside]
        return dense[self.allowed]

    def count(self, pairs: pd.DataFrame) -> int:
        """How many of the candidates `pairs` has."""
        return int(self._locate(pairs)[2].sum())

    def _locate(self, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, columns = self.regulators.get_indexer(pairs["regulator"]), self.genes.get_indexer(pairs["target"])
        return rows, columns, (rows >= 0) & (columns >= 0)


def candidates_of(regulators: Iterable[str], genes: Iterable[str], universe: str) -> Candidates:
    """All pairs of `regulators` x `genes` but self, in alphabetical order."""
    rows, columns = pd.Index(sorted(set(regulators)), dtype=object), pd.Index(sorted(set(genes)), dtype=object)
    return Candidates(universe, rows, columns, rows.to_numpy()[:, None] != columns.to_numpy())
