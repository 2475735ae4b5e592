"""The edge list: directed regulator -> target pairs, each once, sorted by falling absolute weight.

No self-loops. Where the model has signs, a positive weight activates and a negative one represses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

COLUMNS = ["regulator", "target", "weight"]


@dataclass(frozen=True)
class EdgeList:
    """A ranked network: `table` has the columns regulator, target (str) and weight (float), best edge first."""

    table: pd.DataFrame
    genes: tuple[str, ...] = ()  # the panel the edges were drawn from, in column order; empty if unknown
    signed: bool = False  # whether the sign of a weight means activation or repression
    origin: Mapping[str, str] = field(default_factory=dict)  # where it comes from: run, store digest, MLflow run id

    def __len__(self) -> int:
        return len(self.table)


def edge_list(
    regulators: Iterable[str],
    targets: Iterable[str],
    weights: Sequence[float] | np.ndarray,
    genes: Sequence[str] = (),
    signed: bool = False,
    origin: Mapping[str, str] | None = None,
) -> EdgeList:
    """Return the edges sorted by falling absolute weight; ties in order of regulator, then target.

    Raises:
        ValueError: a self-loop, an edge given twice, or a weight that is not finite.
    """
    table = pd.DataFrame(
        {"regulator": list(regulators), "target": list(targets), "weight": np.asarray(weights, dtype=np.float64)}
    )
    if (table["regulator"] == table["target"]).any():
        raise ValueError("an edge list holds no self-loops")
    if table.duplicated(["regulator", "target"]).any():
        raise ValueError("an edge list holds every pair at most once")
    if not np.isfinite(table["weight"]).all():
        raise ValueError("an edge weight is not finite")
    table["strength"] = -table["weight"].abs()
    table = table.sort_values(["strength", "regulator", "target"], kind="stable")[COLUMNS].reset_index(drop=True)
    return EdgeList(table, tuple(genes), signed, dict(origin or {}))
