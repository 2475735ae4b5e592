"""How alike two edge lists are: their strongest edges, and their weights.

Edges are ordered pairs of names; a pair that is listed the other way round is another edge. Strength is |weight|, and
an edge of weight 0 is none.
"""

import math

import numpy as np
import pandas as pd
from jaxtyping import Float

from grndist.networks.edges import EdgeList


def overlap_at(a: EdgeList, b: EdgeList, k: int) -> float:
    """The share of the `k` strongest edges that two lists have in common; 1 for the same edges, in whatever order.

    Edges tied with the k-th are all among the strongest, as BEELINE has it, so that order decides nothing; a list of
    fewer than `k` edges gives all of them. Of two tops of unlike size the share is of the larger one. 0 where both are
    empty.
    """
    ours, theirs = top(a, k), top(b, k)
    return _ratio(len(ours.intersection(theirs)), max(len(ours), len(theirs)))


def jaccard_at(a: EdgeList, b: EdgeList, k: int) -> float:
    """The edges that both lists have among their `k` strongest, as a share of those that either has there.

    Ties and short lists as in `overlap_at`; BEELINE's stability (Pratapa et al. 2020) is the median of this over pairs
    of networks, with k the number of edges of the reference. 0 where both are empty.
    """
    ours, theirs = top(a, k), top(b, k)
    common = len(ours.intersection(theirs))
    return _ratio(common, len(ours) + len(theirs) - common)


def spearman(a: EdgeList, b: EdgeList) -> float:
    """Spearman's correlation of the signed weights over every edge that either list has; one that lacks it has 0 there.

    Equal weights share the mean of their ranks. NaN where a list has the same weight everywhere.
    """
    ours, theirs = aligned(a, b)
    if len(ours) == 0 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return math.nan
    ranks = (pd.Series(weights).rank().to_numpy() for weights in (ours, theirs))
    return float(np.corrcoef(*ranks)[0, 1])


def top(edges: EdgeList, k: int) -> pd.MultiIndex:
    """The `k` strongest edges, and those tied with the k-th.

    Raises:
        ValueError: `k` is not positive.
    """
    if k < 1:
        raise ValueError(f"k is {k}; the number of strongest edges is at least 1")
    strength = edges.table["weight"].abs().to_numpy()
    kept = strength > 0
    if len(strength) > k:
        kept &= strength >= strength[k - 1]  # sorted by falling strength
    return pd.MultiIndex.from_frame(edges.table.loc[kept, ["regulator", "target"]])


def aligned(a: EdgeList, b: EdgeList) -> tuple[Float[np.ndarray, " edges"], Float[np.ndarray, " edges"]]:
    """The weights of every edge that either list has, 0 where one lacks it."""
    both = a.table.merge(b.table, how="outer", on=["regulator", "target"], suffixes=("_a", "_b"))
    return both["weight_a"].fillna(0).to_numpy(), both["weight_b"].fillna(0).to_numpy()


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
