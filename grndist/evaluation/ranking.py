"""How well a ranking of candidate edges recovers a reference network, in the definitions of two lineages.

Common to all functions here: `score` is |weight| of every candidate edge, once each, self-loops removed; a candidate
that a network does not list scores 0. `is_true` says whether it is in the reference; k of the N candidates are true,
0 < k. Which pairs are candidates is the caller's choice (`evaluate`). No value depends on the order of the candidates.

- BEELINE: Pratapa et al. 2020, doi 10.1038/s41592-019-0690-6, and the released code v1.1.0.
- DAZZLE: DeepSEM (Shu et al. 2021), GRN-VAE and DAZZLE as released; published EPRs of these belong here.
"""

import numpy as np
from jaxtyping import Bool, Float

Score = Float[np.ndarray, " edges"]
Mask = Bool[np.ndarray, " edges"]


def beeline_top(score: Score, k: int) -> Mask:
    """The edges from the k-th score up; all edges tied with the k-th are in, edges scored 0 never are.

    The cutoff is the larger of the k-th and the smallest non-zero score, so the set can be larger or smaller than k.
    """
    return (score >= _kth_largest(score, k)) & (score > 0)


def dazzle_top(score: Score, k: int) -> Mask:
    """The edges strictly above the k-th score: k - 1 of them without ties, fewer when others tie with the k-th."""
    return score > _kth_largest(score, k)


def beeline_early_precision(score: Score, is_true: Mask) -> float:
    """Share of true edges in `beeline_top`; 0 if every score is 0."""
    top = beeline_top(score, _count_true(is_true))
    return float(is_true[top].mean()) if top.any() else 0.0


def dazzle_early_precision(score: Score, is_true: Mask) -> float:
    """True edges in `dazzle_top`, divided by k (not by the size of the set): at most (k - 1) / k."""
    k = _count_true(is_true)
    return float(is_true[dazzle_top(score, k)].sum() / k)


def beeline_auprc(score: Score, is_true: Mask) -> float:
    """Area under the precision-recall curve by the trapezoid rule, from the point (recall 0, precision 1).

    One point per distinct score, so tied edges enter together. Equals scikit-learn's `auc(recall, precision)` on
    `precision_recall_curve`. With many ties at 0 the rule is optimistic: it joins distant points by a line.
    """
    precision, recall = _curve(score, is_true)
    heights = (precision + np.concatenate([[1.0], precision[:-1]])) / 2
    return float(np.sum(np.diff(recall, prepend=0.0) * heights))


def dazzle_average_precision(score: Score, is_true: Mask) -> float:
    """Average precision: the sum over distinct scores of (gain in recall) x precision; tied edges enter together.

    Equals scikit-learn's `average_precision_score`.
    """
    precision, recall = _curve(score, is_true)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def ratio_to_chance(value: float, is_true: Mask) -> float:
    """An early precision or area divided by k / N, its value for edges picked at random.

    For DAZZLE's early precision TP / k this is TP / (k^2 / N), as published.
    """
    return value * len(is_true) / _count_true(is_true)


def _curve(score: Score, is_true: Mask) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Precision and recall of the edges at or above each distinct score, highest score first."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(is_true[order])
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    return hits[last_of_tie] / (last_of_tie + 1), hits[last_of_tie] / _count_true(is_true)


def _kth_largest(score: Score, k: int) -> float:
    return float(np.partition(score, -k)[-k])


def _count_true(is_true: Mask) -> int:
    k = int(is_true.sum())
    if k == 0:
        raise ValueError(f"none of the {len(is_true)} candidate edges is true")
    return k
