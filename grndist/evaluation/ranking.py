"""How well a ranking of candidate edges recovers a reference network, in the definitions of two lineages.

Common to all functions here: `score` is |weight| of every candidate edge, once each, self-loops removed; a candidate
that a network does not list scores 0. `is_true` says whether it is in the reference; k of the N candidates are true,
0 < k. Which pairs are candidates is the caller's choice (`evaluate`). No value depends on the order of the candidates.

- BEELINE: Pratapa et al. 2020, doi 10.1038/s41592-019-0690-6, and the released code v1.1.0.
- DAZZLE: DeepSEM (Shu et al. 2021), GRN-VAE and DAZZLE as released; published EPRs of these belong here.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

Score = Float[np.ndarray, " edges"]
Mask = Bool[np.ndarray, " edges"]
Signs = Integer[np.ndarray, " edges"]


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


def auroc(score: Score, is_true: Mask) -> float:
    """Area under the receiver operating characteristic: how often a true edge scores above another candidate.

    Tied pairs count half; chance is 0.5. Equals scikit-learn's `roc_auc_score`. NaN if every candidate is true.
    """
    hits, counted = _cumulative(score, is_true)
    misses = counted - hits
    if misses[-1] == 0:
        return float("nan")
    recall, fall_out = hits / _count_true(is_true), misses / misses[-1]
    heights = (recall + np.concatenate([[0.0], recall[:-1]])) / 2
    return float(np.sum(np.diff(fall_out, prepend=0.0) * heights))


def beeline_signed_ratio(score: Score, is_true: Mask, sign: Signs, wanted: Literal[1, -1]) -> float:
    """BEELINE's early precision ratio of the activating (`wanted` 1) or the repressing (-1) true edges alone.

    True edges of the other sign, or of none, leave the candidates first; k and N are those of what is left. The signs
    of the prediction play no part. NaN if no true edge has that sign. (The released code also rounds weights to six
    decimals, which this does not.)

    Args:
        score: |weight| of every candidate.
        is_true: whether it is in the reference.
        sign: its sign there: 1, -1 or, unknown or no edge, 0.
        wanted: which sign.
    """
    kept = ~is_true | (sign == wanted)
    score, is_true = score[kept], is_true[kept]
    return ratio_to_chance(beeline_early_precision(score, is_true), is_true) if is_true.any() else float("nan")


def ratio_to_chance(value: float, is_true: Mask) -> float:
    """An early precision or area divided by k / N, its value for edges picked at random.

    For DAZZLE's early precision TP / k this is TP / (k^2 / N), as published.
    """
    return value * len(is_true) / _count_true(is_true)


def _curve(score: Score, is_true: Mask) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Precision and recall of the edges at or above each distinct score, highest score first."""
    hits, counted = _cumulative(score, is_true)
    return hits / counted, hits / _count_true(is_true)


def _cumulative(score: Score, is_true: Mask) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " points"]]:
    """How many edges at or above each distinct score are true, and how many there are, highest score first."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    return np.cumsum(is_true[order])[last_of_tie], last_of_tie + 1


def _kth_largest(score: Score, k: int) -> float:
    return float(np.partition(score, -k)[-k])


def _count_true(is_true: Mask) -> int:
    k = int(is_true.sum())
    if k == 0:
        raise ValueError(f"none of the {len(is_true)} candidate edges is true")
    return k
