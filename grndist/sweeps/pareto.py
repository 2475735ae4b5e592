"""The trials that no other trial beats, where a sweep has several objectives."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

FINISHED = "finished"


def pareto_front(table: pd.DataFrame, directions: Mapping[str, Literal["max", "min"]]) -> pd.DataFrame:
    """The rows that are not dominated, best of the first objective first.

    A trial dominates another one that it is at least as good as in every objective and better than in one; trials of
    equal values do not dominate each other, and all are kept. A trial with an objective that is not a finite number,
    or whose `status`, if there is such a column, is not "finished", is never on the front and dominates none.

    Args:
        table: a row for each trial, with a column for each objective.
        directions: of the objectives, whether more or less is better.
    """
    names = list(directions)
    values = table[names].to_numpy(np.float64) * [1 if directions[name] == "max" else -1 for name in names]
    known = np.isfinite(values).all(axis=1)
    if "status" in table:
        known &= (table["status"] == FINISHED).to_numpy()
    candidates = values[known]
    undominated = [not _dominates(candidates, own).any() for own in candidates]
    front = table[known][np.array(undominated, dtype=bool)]
    return front.sort_values(names[0], ascending=directions[names[0]] == "min", kind="stable")


def _dominates(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Which trials dominate one."""
    return np.logical_and((values >= own).all(axis=1), (values > own).any(axis=1))
