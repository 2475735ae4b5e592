"""Scores of every pair of genes from the sums of a perturbation screen: what `effects` makes of them.

A score matrix has a row for every gene as regulator and a column for every gene as target; more means more likely
to be an edge, and the diagonal, of no meaning, is NaN in all but the correlation's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from grndist.effects import (
    difference_of_means,
    edge_log_odds,
    partial_correlation,
    posterior_log_odds,
    without_self,
)
from grndist.evaluation.ranking import dazzle_average_precision, ratio_to_chance

Scores = Float64[np.ndarray, "genes genes"]


@dataclass(frozen=True)
class Screen:
    """What the baselines need to know of a perturbation screen: sums over its cells."""

    control_mean: Float64[np.ndarray, " genes"]  # log1p of library-normalised counts, as the other moments
    deviation: Float64[np.ndarray, " genes"]
    n_controls: int
    perturbed: Int64[np.ndarray, " regulators"]  # columns of the perturbed genes, each once
    group_means: Float64[np.ndarray, "regulators genes"]
    group_sizes: Int64[np.ndarray, " regulators"]  # cells
    covariance: Float64[np.ndarray, "genes genes"]  # over all cells

    @property
    def is_perturbed(self) -> Bool[np.ndarray, " genes"]:
        """Whether each gene is knocked down in some cells."""
        return np.isin(np.arange(len(self.control_mean)), self.perturbed)

    def z(self) -> Float64[np.ndarray, "regulators genes"]:
        """Difference of means in standard errors, without the perturbed genes' own."""
        return without_self(self._difference("z"), self.perturbed)

    def log_change(self) -> Float64[np.ndarray, "regulators genes"]:
        """Difference of means in the values' own units, without the perturbed genes' own."""
        return without_self(self._difference("log"), self.perturbed)

    def partial(self) -> Scores:
        """Signed partial correlations, shrunk by a half."""
        return without_self(partial_correlation(self.covariance), np.arange(len(self.covariance)))

    def _difference(self, kind: Literal["log", "z"]) -> Float64[np.ndarray, "regulators genes"]:
        return difference_of_means(
            self.group_means, self.control_mean, self.deviation, self.group_sizes, self.n_controls, kind
        )


def mean_difference_log(screen: Screen) -> Scores:
    """|difference of means| in log units; 0, no evidence, for regulators that are not perturbed."""
    return _whole(screen, np.abs(screen.log_change()))


def mean_difference_z(screen: Screen) -> Scores:
    """|difference of means| in standard errors; 0, no evidence, for regulators that are not perturbed."""
    return _whole(screen, np.abs(screen.z()))


def mean_difference_odds(screen: Screen) -> Scores:
    """Posterior log odds of the difference of means; the least of them for regulators that are not perturbed."""
    return _whole(screen, posterior_log_odds(screen.z()))


def partial_correlation_size(screen: Screen) -> Scores:
    """|partial correlation|; symmetric."""
    return np.abs(screen.partial())


def blend_odds(screen: Screen) -> Scores:
    """Log odds by difference of means + 0.5 x partial correlation; by the latter alone for unperturbed regulators.

    All pairs are in one ranking (`edge_log_odds`).
    """
    return edge_log_odds(screen.z(), screen.partial(), screen.perturbed)


def _whole(screen: Screen, rows: Float64[np.ndarray, "regulators genes"]) -> Scores:
    """Return a score for every gene as regulator, where only the perturbed ones have evidence: the least for others."""
    scores = np.full(screen.covariance.shape, np.nanmin(rows) if rows.size else 0.0)
    scores[screen.perturbed] = rows
    np.fill_diagonal(scores, np.nan)
    return scores


SCREEN_BASELINES: dict[str, Callable[[Screen], Scores]] = {
    "mean difference (log)": mean_difference_log,
    "mean difference (z)": mean_difference_z,
    "mean difference (z), odds": mean_difference_odds,
    "partial correlation": partial_correlation_size,
    "mean difference + 0.5 partial correlation, odds": blend_odds,
}


@dataclass(frozen=True)
class Strata:
    """A measure for pairs of perturbed regulators, of the others, and of all; None where no pair is a true edge."""

    perturbed: float | None
    unperturbed: float | None
    all: float | None


def strata_scores(
    scores: Float[np.ndarray, "genes genes"],
    truth: Bool[np.ndarray, "genes genes"],
    is_perturbed: Bool[np.ndarray, " genes"],
) -> Strata:
    """AUPRC ratio (average precision / share of true edges) by whether the regulator was perturbed.

    Candidates are all ordered pairs of two different genes, with any gene as regulator: perturbed genes that
    regulate nothing are candidates too. Ties enter together (`dazzle_average_precision`).
    """
    everything = np.ones(len(truth), dtype=bool)
    return Strata(*(_auprc_ratio(scores, truth, rows) for rows in (is_perturbed, ~is_perturbed, everything)))


def _auprc_ratio(
    scores: Float[np.ndarray, "genes genes"], truth: Bool[np.ndarray, "genes genes"], rows: Bool[np.ndarray, " genes"]
) -> float | None:
    pairs = ~np.eye(len(truth), dtype=bool)[rows]
    is_true = truth[rows][pairs]
    if not is_true.any():
        return None
    return ratio_to_chance(dazzle_average_precision(scores[rows][pairs], is_true), is_true)
