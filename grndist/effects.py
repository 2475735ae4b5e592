"""Statistics of a perturbation screen that need no model: effects, partial correlations, odds of being an edge.

Pure functions of arrays; stores, models and references are unknown here. Signed matrices have the axes
[regulators, targets], a row being a perturbed gene or, for statistics of association, any gene. NaN marks what is no
candidate, such as a gene and itself; it takes no part in any sum and stays NaN. Odds are in the precision of what they
are made from, sums of many entries in float64.

Sign: a knock-down that lowers its target (activation) has a negative effect, an activator a positive association.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.linalg import lapack
from scipy.optimize import minimize
from scipy.special import expit

Signed = Float[np.ndarray, "regulators targets"]

VALUES = 2**16  # that are worked on at once: a few such arrays stay in the cache

START_PROPORTION = 0.1  # of wide entries, before the first step
START_LOG_ODDS = float(np.log(START_PROPORTION / (1 - START_PROPORTION)))
PRIOR_ENTRIES = 20.0  # weight of the mean proportion in each regulator's own; 1 to 200 measured in docs/simulator.md
LEAST_PROPORTION = 1e-6  # of wide entries, and of narrow ones
RIDGE = 1.0  # on the slope: that of one entry
LEAST_SLOPE = 1e-3  # per mean |association|
LEAST_VARIANCE = 1e-4  # of the narrow normal relative to all entries: many near-zeros would else make it a spike


def difference_of_means(
    group_means: Float[np.ndarray, "regulators targets"],
    control_mean: Float[np.ndarray, " targets"],
    deviation: Float[np.ndarray, " targets"],
    group_sizes: Int64[np.ndarray, " regulators"],
    n_controls: int,
    kind: Literal["log", "z"],
) -> Signed:
    """Mean of each perturbed gene's cells minus mean of the control cells: what the knock-down does.

    "log" is the difference in the units of the values (log1p counts: natural log), "z" the difference divided by
    deviation * sqrt(1 / group size + 1 / controls), its standard error if `deviation` is the sd within a group.
    A gene of deviation 0 has z 0.

    Raises:
        ValueError: a group, or the controls, have no cells.
    """
    if n_controls < 1 or (group_sizes < 1).any():
        raise ValueError(f"{n_controls} control cells and groups of {group_sizes.tolist()} cells; each needs a cell")
    difference = np.asarray(group_means, np.float64) - control_mean
    if kind == "log":
        return difference
    scale = np.divide(1.0, deviation, out=np.zeros(len(deviation)), where=deviation > 0)
    return difference * scale / np.sqrt(1 / group_sizes[:, None] + 1 / n_controls)


def partial_correlation(
    covariance: Float[np.ndarray, "genes genes"], shrinkage: float = 0.5
) -> Float64[np.ndarray, "genes genes"]:
    """Partial correlation of every two genes given all others; exactly symmetric, diagonal 1.

    From the inverse K of the shrunk correlation matrix (1 - shrinkage) C + shrinkage I: -K_ij / sqrt(K_ii K_jj)
    (Schaefer and Strimmer 2005, with a given shrinkage). A gene of variance 0 has 0 with all others.

    Raises:
        ValueError: shrinkage is outside (0, 1], or `covariance` is none.
    """
    if not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage is {shrinkage}; it must be above 0, for an inverse to exist, and at most 1")
    variance = covariance.diagonal()
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros(len(variance)), where=variance > 0)
    shrunk = covariance * scale[:, None] * ((1 - shrinkage) * scale)
    np.fill_diagonal(shrunk, 1.0)
    inverse = _inverse(shrunk)
    scale = 1 / np.sqrt(inverse.diagonal())
    inverse *= -scale[:, None]
    inverse *= scale
    upper = np.triu(inverse, 1)
    partial = upper + upper.T  # each pair once, so (i, j) and (j, i) stay tied
    np.fill_diagonal(partial, 1.0)
    return partial


def _inverse(matrix: Float64[np.ndarray, "genes genes"]) -> Float64[np.ndarray, "genes genes"]:
    """Return the upper triangle of a positive definite matrix's inverse, in the memory of `matrix`."""
    factor, failed = lapack.dpotrf(matrix.T, lower=0, overwrite_a=1)
    if failed:
        raise ValueError("the covariance has negative eigenvalues; it must come from sums over one set of cells")
    return lapack.dpotri(factor, lower=0, overwrite_c=1)[0]


def blend(effect: Signed, association: Signed, weight: float = 0.5, out: Signed | None = None) -> Signed:
    """Combine the effects of knock-downs with an association of the same genes: effect - weight * association.

    Each is divided by its sd over the entries that are not NaN, or is 0 where that is 0. The minus makes an activator's
    two kinds of evidence add up: v < 0 is activation, as in `effect`. `out`, which may be `effect`, takes the result.
    """
    of_effect, of_association = (1 / unit if unit > 0 else 0.0 for unit in map(_deviation, (effect, association)))
    v = np.multiply(effect, of_effect, out=out)
    for rows in _blocks(v):
        v[rows] -= (weight * of_association) * association[rows]
    return v


def _deviation(values: Signed) -> float:
    """Return the sd of the entries that are not NaN; 0 where there are none."""
    count = max(int(np.count_nonzero(~np.isnan(values))), 1)
    mean = sum(float(np.nansum(values[rows], dtype=np.float64)) for rows in _blocks(values)) / count
    square = sum(float(np.nansum((values[rows] - mean) ** 2, dtype=np.float64)) for rows in _blocks(values))
    return float(np.sqrt(square / count))


def _blocks(values: np.ndarray) -> Iterator[slice]:
    """Rows of a matrix, or entries of a vector, in parts of about VALUES entries."""
    length = max(VALUES // max(values[:1].size, 1), 1)
    return (slice(first, first + length) for first in range(0, len(values), length))


def posterior_log_odds(v: Signed, n_steps: int = 30) -> Signed:
    """Log odds that an entry belongs to the wide of two normals, each regulator having its own share of wide entries.

    Empirical Bayes over v_st, regulators s, targets t:

        v_st ~ (1 - pi_s) N(0, a) + pi_s N(0, b)           variances a <= b common to all regulators
        l_st = log(pi_s / (1 - pi_s)) + log(a / b) / 2 + v_st^2 (1 / a - 1 / b) / 2
        p_st = 1 / (1 + exp(-l_st))
        a    = sum (1 - p) v^2 / sum (1 - p)      b = sum p v^2 / sum p
        pi_s = (sum_t p_st + PRIOR_ENTRIES pibar) / (n_s + PRIOR_ENTRIES)      pibar = mean p of all entries

    `n_steps` of expectation maximisation from a = (median |v| / 0.6745)^2, pi = 0.1 and the b that gives their mean
    square. l grows with |v| within a regulator, and from one |v| it is the larger the more wide entries its regulator
    has; it does not depend on the unit of v or the order of rows and columns. NaN is ignored and stays; exact zeros, as
    a gene that is never seen has, get odds but take no part in the fit, where a spike of them would stand for the
    narrow normal. Where nothing is wide (all |v| equal) all odds are equal. Holds two arrays of the size of v.

    Raises:
        ValueError: an entry is infinite.
    """
    square = np.square(v)
    np.copyto(square, 0, where=np.isnan(square))
    counts = np.count_nonzero(square, axis=1)  # tiny values may underflow to 0
    if not np.isfinite(total := float(square.sum(dtype=np.float64))):
        raise ValueError("an entry is infinite; candidates must be finite and anything else NaN")
    if total == 0:
        return np.where(np.isnan(v), np.nan, START_LOG_ODDS).astype(v.dtype)
    square *= counts.sum() / total
    mixture = _start(square[square > 0], len(v))
    for _ in range(n_steps):
        mixture = _improved(mixture, square, counts)
    level, slope = mixture.line()
    square *= slope  # the odds take the place of the squares
    square += level.astype(v.dtype)
    np.copyto(square, np.nan, where=np.isnan(v))
    return square


@dataclass(frozen=True)
class _Mixture:
    """Shares and variances of the two normals."""

    proportion: Float64[np.ndarray, " regulators"]  # of wide entries
    narrow: float
    wide: float

    def line(self) -> tuple[Float64[np.ndarray, "regulators 1"], float]:
        """Level and slope of the log odds, level + slope v^2."""
        level = np.log(self.proportion) - np.log1p(-self.proportion) + np.log(self.narrow / self.wide) / 2
        return level[:, None], (1 / self.narrow - 1 / self.wide) / 2


def _start(square: Float[np.ndarray, " edges"], n_regulators: int) -> _Mixture:
    """Return the mixture to start from; the mean of `square`, which is put in another order, is 1."""
    narrow = min(max(float(np.median(square, overwrite_input=True)) / 0.6745**2, LEAST_VARIANCE), 1.0)
    wide = max((1 - (1 - START_PROPORTION) * narrow) / START_PROPORTION, 4 * narrow)
    return _Mixture(np.full(n_regulators, START_PROPORTION), narrow, wide)


def _improved(mixture: _Mixture, square: Signed, counts: Int64[np.ndarray, " regulators"]) -> _Mixture:
    """Return the mixture that fits its posterior probabilities best: one step of expectation maximisation."""
    members, within, total = np.zeros(len(square)), 0.0, counts.sum()
    level, slope = mixture.line()
    for rows in _blocks(square):
        p = square[rows] * -slope
        p -= level[rows].astype(p.dtype)
        np.exp(p, out=p)  # cannot overflow: proportions and variances are bounded below
        p += 1
        np.divide(square[rows] > 0, p, out=p)
        members[rows] = p.sum(axis=1)
        within += float(np.vdot(p, square[rows]))
    narrow = max((total - within) / max(total - members.sum(), 1.0), LEAST_VARIANCE)
    wide = max(within / max(members.sum(), 1e-300), narrow)
    proportion = (members + PRIOR_ENTRIES * members.sum() / total) / (counts + PRIOR_ENTRIES)
    return _Mixture(np.clip(proportion, LEAST_PROPORTION, 1 - LEAST_PROPORTION), float(narrow), float(wide))


@dataclass(frozen=True)
class EdgeOdds:
    """Log odds of being an edge: of perturbed regulators, and as a function of an association for the others."""

    blended: Signed  # rows of the perturbed regulators; < 0 is activation
    log_odds: Signed  # of the same rows
    offset: float  # of the others: offset + slope |association|
    slope: float


def edge_odds(effect: Signed, association: Signed, weight: float = 0.5) -> EdgeOdds:
    """What two kinds of evidence say of perturbed regulators, and therefore one of them says of the others.

    Perturbed: `posterior_log_odds` of the blend of effect and association. Others have an association only; how much
    that says is learnt where the effect tells the truth, on the perturbed genes' rows (`transferred_odds`).

    Args:
        effect: of each perturbed gene's knock-down; NaN for itself. The blend takes its memory.
        association: of the same rows; signed, such as partial correlations, and NaN for self pairs.
        weight: of the association in the blend.
    """
    offset, slope = transferred_odds(effect, association)
    blended = blend(effect, association, weight, out=effect)
    return EdgeOdds(blended, posterior_log_odds(blended), offset, slope)


def edge_log_odds(
    effect: Signed,
    association: Float64[np.ndarray, "genes targets"],
    perturbed: Int64[np.ndarray, " regulators"],
    weight: float = 0.5,
) -> Float64[np.ndarray, "genes targets"]:
    """Log odds of being an edge for every gene as regulator, those of perturbed and other genes on one scale.

    `edge_odds` says how, row i of `effect` being gene perturbed[i]. Nothing perturbed: `posterior_log_odds` of the
    association, with one proportion for all.
    """
    if len(perturbed) == 0:
        return posterior_log_odds(association.reshape(1, -1)).reshape(association.shape)
    found = edge_odds(effect.copy(), association[perturbed], weight)
    log_odds = found.offset + found.slope * np.abs(association)
    log_odds[perturbed] = found.log_odds
    return log_odds


def transferred_odds(effect: Signed, association: Signed) -> tuple[float, float]:
    """What an association says of a regulator that is not perturbed: log odds = offset + slope |association|.

    Learnt from the perturbed regulators, whose rows both matrices have: logistic regression of the probabilities by
    `posterior_log_odds` of the effect on |association|. The slope is kept above 0, so that the order is that of
    |association| whatever these rows say. Without rows nothing can be learnt: the offset is the log odds of
    START_PROPORTION, the slope 1.

    Fitting wide and narrow normals to the associations themselves does not do: genes in one pathway have wide ones in
    both directions (docs/simulator.md).
    """
    known = ~(np.isnan(effect) | np.isnan(association))
    if not known.any():
        return START_LOG_ODDS, 1.0
    p = posterior_log_odds(effect)[known]
    expit(p, out=p)
    size = association[known]
    np.abs(size, out=size)
    scale = float(size.mean(dtype=np.float64)) or 1.0
    size /= scale
    offset, slope = _logistic_line(size, p)
    return offset, slope / scale


def _logistic_line(x: Float[np.ndarray, " edges"], p: Float[np.ndarray, " edges"]) -> tuple[float, float]:
    """Return offset and slope of the logistic regression of `p` on `x`, with a ridge and a least slope."""
    ridge = RIDGE / len(x)
    mean = np.clip(p.mean(dtype=np.float64), LEAST_PROPORTION, 1 - LEAST_PROPORTION)

    def loss(line: Float64[np.ndarray, " 2"]) -> tuple[float, Float64[np.ndarray, " 2"]]:
        """Cross-entropy per entry, with the ridge, and its gradient."""
        sums = np.sum([_cross_entropy(line, x[part], p[part]) for part in _blocks(x)], axis=0) / len(x)
        return float(sums[0] + ridge * line[1] ** 2 / 2), np.array([sums[1], sums[2] + ridge * line[1]])

    start = [np.log(mean / (1 - mean)), LEAST_SLOPE]
    offset, slope = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), (LEAST_SLOPE, None)]).x
    return float(offset), float(slope)


def _cross_entropy(
    line: Float64[np.ndarray, " 2"], x: Float[np.ndarray, " edges"], p: Float[np.ndarray, " edges"]
) -> Float64[np.ndarray, " 3"]:
    """Return the sums over entries of the cross-entropy and its derivatives by offset and slope, in float64."""
    x, p = x.astype(np.float64), p.astype(np.float64)
    log_odds = line[0] + line[1] * x
    small = np.exp(-np.abs(log_odds))  # as vector instructions, unlike logaddexp and expit
    value = np.maximum(log_odds, 0).sum() + np.log1p(small).sum() - p @ log_odds
    error = np.where(log_odds < 0, small, 1) / (1 + small) - p
    return np.array([value, error.sum(), error @ x])


def without_self(scores: Float[np.ndarray, "regulators targets"], rows: Int64[np.ndarray, " regulators"]) -> Signed:
    """Return a copy that is NaN where a regulator, row i being gene rows[i], meets itself."""
    scores = np.array(scores, dtype=np.float64)
    scores[np.arange(len(rows)), rows] = np.nan
    return scores
