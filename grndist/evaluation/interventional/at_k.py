"""One number for a network at K edges: the first K testable ones of its ranking (`score_edges`)."""

import pandas as pd

from grndist.evaluation.interventional.cells import InterventionError


def mean_wasserstein(table: pd.DataFrame, k: int) -> float:
    """Mean Wasserstein distance of the first k testable edges, in the units of the expression; more is better.

    Raises:
        InterventionError: there are fewer.
    """
    return float(_first(table, k)["wasserstein"].mean())


def rank_sum_precision(table: pd.DataFrame, k: int, alpha: float = 0.05) -> float:
    """Share of the first k testable edges whose rank-sum test has p < alpha, without correction; more is better.

    Of edges without any effect a share of about alpha has it, too.

    Raises:
        InterventionError: there are fewer.
    """
    return float((_first(table, k)["p"] < alpha).mean())


def _first(table: pd.DataFrame, k: int) -> pd.DataFrame:
    testable = table[table["n"] > 0]
    if len(testable) < k:
        raise InterventionError(
            f"{k:,} edges are to be compared, but only {len(testable):,} of the network's {len(table):,} are testable "
            "(their regulator is perturbed among these cells and their target measured); ask for fewer, or list more "
            "edges"
        )
    return testable.head(k)
