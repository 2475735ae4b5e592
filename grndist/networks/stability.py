"""How much networks of one kind agree: the top edges of replicates, and all their signed weights.

BEELINE's measures (Pratapa et al. 2020, doi 10.1038/s41592-019-0690-6). A weight of 0 is no edge, and an edge that a
list lacks has weight 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from grndist.errors import UserError
from grndist.networks import compare
from grndist.networks.edges import EdgeList


class StabilityError(UserError):
    """Networks that cannot be compared."""


@dataclass(frozen=True)
class Stability:
    """Agreement of all pairs of networks: mean and standard deviation (n - 1; NaN for a single pair).

    BEELINE reports the median, and the mean absolute deviation from the mean.
    """

    jaccard: float
    jaccard_sd: float
    spearman: float
    spearman_sd: float
    pairs: int
    jaccard_median: float
    jaccard_deviation: float
    spearman_median: float
    spearman_deviation: float


def stability(lists: Sequence[EdgeList], k: int) -> Stability:
    """The agreement of replicates, each with each other one: `jaccard` of the top k, `spearman` of all weights.

    Raises:
        StabilityError: there are fewer than two, or one has fewer than k edges.
    """
    _refuse_single(lists)
    pairs = list(combinations(lists, 2))
    overlaps, correlations = [jaccard(a, b, k) for a, b in pairs], [spearman(a, b) for a, b in pairs]
    return Stability(
        *_mean_and_sd(overlaps),
        *_mean_and_sd(correlations),
        len(pairs),
        *_median_and_deviation(overlaps),
        *_median_and_deviation(correlations),
    )


def agreement_with_others(lists: Sequence[EdgeList], k: int) -> list[float]:
    """Of every network, its mean `jaccard` with all other ones; their mean is `stability`'s.

    Raises:
        StabilityError: see `stability`.
    """
    _refuse_single(lists)
    tops = [top(one, k) for one in lists]
    return [
        float(np.mean([_overlap(own, other) for at, other in enumerate(tops) if at != number]))
        for number, own in enumerate(tops)
    ]


def jaccard(a: EdgeList, b: EdgeList, k: int) -> float:
    """Edges in the top k of both / edges in the top k of either; 1 where they are the same, signs aside.

    Raises:
        StabilityError: one has fewer than k edges.
    """
    return _overlap(top(a, k), top(b, k))


def top(edges: EdgeList, k: int) -> pd.MultiIndex:
    """The edges from the k-th |weight| up: all that tie with the k-th are in, so there may be more than k.

    Raises:
        StabilityError: there are fewer than k edges.
    """
    found = int((edges.table["weight"] != 0).sum())
    if found < k:
        raise StabilityError(f"the top {k:,} edges are to be compared, but a network has only {found:,}; ask for fewer")
    return compare.top(edges, k)


def spearman(a: EdgeList, b: EdgeList, candidates: int | None = None) -> float:
    """Rank correlation of the signed weights of all candidate edges, tied weights having their mean rank.

    Candidates in neither list have weight 0 in both; they are counted, not held. NaN where one network has the same
    weight everywhere.

    Args:
        a: a network.
        b: another one.
        candidates: how many ordered pairs of genes could be edges; None: each of the panel's genes and of the lists'
            other regulators with each other gene, or the pairs listed where the panel is unknown.
    """
    both = a.table.merge(b.table, how="outer", on=["regulator", "target"], suffixes=("_a", "_b"))
    weights = (both[name].fillna(0.0).to_numpy() for name in ("weight_a", "weight_b"))
    absent = max((_candidates(a, b) if candidates is None else candidates) - len(both), 0)
    count = np.append(np.ones(len(both)), absent)
    x, y = (_mean_ranks(np.append(weight, 0.0), count) for weight in weights)
    return _correlation(x, y, count)


def _candidates(a: EdgeList, b: EdgeList) -> int:
    genes = set(a.genes) | set(b.genes)
    if not genes:
        return 0
    others = (set(a.table["regulator"]) | set(b.table["regulator"])) - genes
    return len(genes) * (len(genes) - 1) + len(others) * len(genes)


def _mean_ranks(
    values: Float[np.ndarray, " values"], count: Float[np.ndarray, " values"]
) -> Float[np.ndarray, " values"]:
    """Mean rank of each value, of which there are `count`."""
    distinct, group = np.unique(values, return_inverse=True)
    of_group = np.bincount(group, count, len(distinct))
    return (np.cumsum(of_group) - (of_group - 1) / 2)[group]


def _correlation(
    x: Float[np.ndarray, " values"], y: Float[np.ndarray, " values"], count: Float[np.ndarray, " values"]
) -> float:
    x, y = x - np.average(x, weights=count), y - np.average(y, weights=count)
    scale = np.sqrt((count * x**2).sum() * (count * y**2).sum())
    return float((count * x * y).sum() / scale) if scale > 0 else float("nan")


def _overlap(a: pd.MultiIndex, b: pd.MultiIndex) -> float:
    shared = int(a.isin(b).sum())
    return shared / (len(a) + len(b) - shared)


def _mean_and_sd(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _median_and_deviation(values: list[float]) -> tuple[float, float]:
    return float(np.median(values)), float(np.mean(np.abs(np.array(values) - np.mean(values))))


def _refuse_single(lists: Sequence[EdgeList]) -> None:
    if len(lists) < 2:
        raise StabilityError(f"stability compares replicates, and there is {len(lists)}; give two or more")
