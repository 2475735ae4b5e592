"""Statistics of a perturbation screen that need no model: effects, partial correlations, odds of being an edge.

Pure functions of arrays, in float64; stores, models and references are unknown here. Signed matrices have the axes
[regulators, targets], a row being a perturbed gene or, for statistics of association, any gene. NaN marks what is no
candidate, such as a gene and itself; it takes no part in any sum and stays NaN.

Sign: a knock-down that lowers its target (activation) has a negative effect, an activator a positive association.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.linalg import lapack
from scipy.optimize import minimize
from scipy.special import expit

Signed = Float64[np.ndarray, "regulators targets"]

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


def blend(effect: Signed, association: Signed, weight: float = 0.5) -> Signed:
    """Combine the effects of knock-downs with an association of the same genes: effect - weight * association.

    Each is divided by its sd over the entries that are not NaN, the self pairs of both therefore being NaN. The minus
    makes an activator's two kinds of evidence add up: v < 0 is activation, as in `effect`.
    """
    return _scaled(effect) - weight * _scaled(association)


def _scaled(values: Signed) -> Signed:
    deviation = np.nanstd(values)
    return values / deviation if deviation > 0 else values * 0.0


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
    narrow normal. Where nothing is wide (all |v| equal) all odds are equal. Holds three arrays of the size of v.

    Raises:
        ValueError: an entry is infinite.
    """
    missing = np.isnan(v)
    square = np.where(missing, 0.0, v) ** 2
    silent = square == 0  # tiny values may underflow to it
    counts = (~silent).sum(axis=1)
    if not np.isfinite(total := square.sum()):
        raise ValueError("an entry is infinite; candidates must be finite and anything else NaN")
    if total == 0:
        return np.where(missing, np.nan, START_LOG_ODDS)
    square *= counts.sum() / total
    narrow, wide = _start(square[~silent])
    proportion = np.full(len(v), START_PROPORTION)
    log_odds = _log_odds(square, proportion, narrow, wide)
    for _ in range(n_steps):
        proportion, narrow, wide = _maximise(expit(log_odds, out=log_odds), square, silent, counts)
        log_odds = _log_odds(square, proportion, narrow, wide, out=log_odds)
    log_odds[missing] = np.nan
    return log_odds


def _start(square: Float64[np.ndarray, " edges"]) -> tuple[float, float]:
    """Return the two variances to start from; the mean of `square` is 1."""
    narrow = min(max(float(np.median(square)) / 0.6745**2, LEAST_VARIANCE), 1.0)
    return narrow, max((1 - (1 - START_PROPORTION) * narrow) / START_PROPORTION, 4 * narrow)


def _log_odds(
    square: Signed,
    proportion: Float64[np.ndarray, " regulators"],
    narrow: float,
    wide: float,
    out: Signed | None = None,
) -> Signed:
    log_odds = np.multiply(square, (1 / narrow - 1 / wide) / 2, out=out)
    log_odds += (np.log(proportion) - np.log1p(-proportion) + np.log(narrow / wide) / 2)[:, None]
    return log_odds


def _maximise(
    p: Signed, square: Signed, silent: Bool[np.ndarray, "regulators targets"], counts: Int64[np.ndarray, " regulators"]
) -> tuple[Float64[np.ndarray, " regulators"], float, float]:
    """Return the proportions and the two variances that fit the posterior probabilities `p` best."""
    p[silent] = 0.0
    members, total = p.sum(axis=1), counts.sum()
    share = members.sum() / total
    within = np.vdot(p, square)
    narrow = max((total - within) / max(total - members.sum(), 1.0), LEAST_VARIANCE)
    wide = max(within / max(members.sum(), 1e-300), narrow)
    proportion = (members + PRIOR_ENTRIES * share) / (counts + PRIOR_ENTRIES)
    return np.clip(proportion, LEAST_PROPORTION, 1 - LEAST_PROPORTION), float(narrow), float(wide)


def edge_log_odds(
    effect: Signed,
    association: Float64[np.ndarray, "genes targets"],
    perturbed: Int64[np.ndarray, " regulators"],
    weight: float = 0.5,
) -> Float64[np.ndarray, "genes targets"]:
    """Log odds of being an edge for every gene as regulator, those of perturbed and other genes on one scale.

    Perturbed: `posterior_log_odds` of the blend of effect and association. Others have an association only; how much
    that says is learnt where the effect tells the truth, on the perturbed genes' rows (`transferred_odds`). Nothing
    perturbed: `posterior_log_odds` of the association, with one proportion for all.

    Args:
        effect: of each perturbed gene's knock-down, row i being gene perturbed[i]; NaN for itself.
        association: signed, such as partial correlations; NaN for self pairs.
        perturbed: columns of the perturbed genes.
        weight: of the association in the blend.
    """
    if len(perturbed) == 0:
        return posterior_log_odds(association.reshape(1, -1)).reshape(association.shape)
    offset, slope = transferred_odds(effect, association[perturbed])
    log_odds = offset + slope * np.abs(association)
    log_odds[perturbed] = posterior_log_odds(blend(effect, association[perturbed], weight))
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
    known = ~np.isnan(effect) & ~np.isnan(association)
    if not known.any():
        return START_LOG_ODDS, 1.0
    size, p = np.abs(association[known]), expit(posterior_log_odds(effect)[known])
    scale = size.mean() or 1.0
    offset, slope = _logistic_line(size / scale, p)
    return offset, slope / scale


def _logistic_line(x: Float64[np.ndarray, " edges"], p: Float64[np.ndarray, " edges"]) -> tuple[float, float]:
    """Return offset and slope of the logistic regression of `p` on `x`, with a ridge and a least slope."""
    ridge = RIDGE / len(x)
    mean = np.clip(p.mean(), LEAST_PROPORTION, 1 - LEAST_PROPORTION)

    def loss(line: Float64[np.ndarray, " 2"]) -> tuple[float, Float64[np.ndarray, " 2"]]:
        """Cross-entropy per entry, with the ridge, and its gradient."""
        log_odds = line[0] + line[1] * x
        value = np.mean(np.logaddexp(0, log_odds) - p * log_odds) + ridge * line[1] ** 2 / 2
        error = expit(log_odds) - p
        return float(value), np.array([error.mean(), (error * x).mean() + ridge * line[1]])

    start = [np.log(mean / (1 - mean)), LEAST_SLOPE]
    offset, slope = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), (LEAST_SLOPE, None)]).x
    return float(offset), float(slope)


def without_self(scores: Float[np.ndarray, "regulators targets"], rows: Int64[np.ndarray, " regulators"]) -> Signed:
    """Return a copy that is NaN where a regulator, row i being gene rows[i], meets itself."""
    scores = np.array(scores, dtype=np.float64)
    scores[np.arange(len(rows)), rows] = np.nan
    return scores
