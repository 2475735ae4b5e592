"""What each cheap baseline knows of every pair of genes, from one or two passes over the cells of a view.

Expression is on the log scale: log(1 + counts scaled to the median library size), or the stored values where those are
not counts. Rows are in no particular order; a gene's own entry is of no meaning.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy import sparse

from grndist.data.moments import Effects, effects, sums
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.perturbations import perturbations_of
from grndist.data.view import View
from grndist.effects import edge_odds, partial_correlation, posterior_log_odds
from grndist.errors import UserError
from grndist.evaluation.baselines.simple import correlation, scatter

LOG_SCALE = ExpressionConfig()


class BaselineError(UserError):
    """A baseline cannot be had from these cells, or not from so many genes."""


@dataclass(frozen=True)
class Evidence:
    """Weights of the edges of some regulators; a positive one activates, where signs mean anything."""

    regulators: Sequence[str]
    weights: Float[np.ndarray, "regulators genes"]  # columns in the order of the view


def dense_blocks(view: View) -> Iterator[Float32[np.ndarray, "cells genes"]]:
    """The expression of a view's cells, block by block."""
    for rows, stored in view.whole_rows():
        yield sparse.csr_matrix(expression(stored, view.totals[rows], view, LOG_SCALE)).toarray()


def of_correlation(view: View) -> Evidence:
    """Pearson correlation over all cells, perturbed ones too; the same in both directions."""
    return Evidence(view.panel.names, correlation(dense_blocks(view)))


def of_partial_correlation(view: View) -> Evidence:
    """Correlation given all other genes, of the correlation matrix shrunk by a half; the same in both directions."""
    return Evidence(view.panel.names, partial_correlation(scatter(dense_blocks(view))))


def of_difference_log(view: View) -> Evidence:
    """Mean of control cells minus mean of the cells in which the regulator alone is perturbed, in log units."""
    found = _effects(view)
    return Evidence(_names(view, found), -found.log)


def of_difference_z(view: View) -> Evidence:
    """The same in standard errors: deviation over all cells x sqrt(1 / perturbed + 1 / control cells)."""
    found = _effects(view)
    return Evidence(_names(view, found), -found.z)


def of_difference_odds(view: View) -> Evidence:
    """log(1 + odds) that the z is of an edge (`effects.posterior_log_odds`), with the sign of regulation."""
    found = _effects(view)
    z = _without_self(found, view.n_genes)
    return Evidence(_names(view, found), _signed(z, posterior_log_odds(z)))


def of_blend(view: View) -> Evidence:
    """log(1 + odds) by z + 0.5 x partial correlation, or by the latter alone where a regulator is not perturbed.

    `effects.edge_odds`: both kinds of regulators are on one scale. Regulators are the genes of the view.
    """
    association = of_partial_correlation(view).weights
    np.fill_diagonal(association, np.nan)
    found = _effects(view, use_unmeasured=False)
    odds = edge_odds(_without_self(found, view.n_genes), association[found.inputs], 0.5)
    weights = np.sign(association) * _log_one_plus(odds.offset + odds.slope * np.abs(association))
    weights[found.inputs] = _signed(odds.blended, odds.log_odds)
    return Evidence(view.panel.names, weights)


EVIDENCE: dict[str, Callable[[View], Evidence]] = {
    "correlation": of_correlation,
    "partial_correlation": of_partial_correlation,
    "mean_difference_log": of_difference_log,
    "mean_difference_z": of_difference_z,
    "mean_difference_odds": of_difference_odds,
    "blend": of_blend,
}


def _effects(view: View, use_unmeasured: bool = True) -> Effects:
    guides = perturbations_of(view, use_unmeasured)
    found = effects(sums(view, LOG_SCALE, guides, products=False), guides)
    if not len(found.inputs):
        lacking = "control cells" if not guides.is_control[np.unique(guides.label)].any() else "perturbed genes"
        raise BaselineError(
            f"{view.place}: there are no {lacking} among the {view.n_cells:,} cells, so there are no differences "
            "between perturbed and control cells; take correlation or partial_correlation instead"
        )
    return found


def _names(view: View, found: Effects) -> list[str]:
    """Of the perturbed genes, some of which may not be measured."""
    names = [*view.panel.names, *perturbations_of(view).unmeasured]
    return [names[at] for at in found.inputs]


def _without_self(found: Effects, n_genes: int) -> Float64[np.ndarray, "regulators genes"]:
    """Effects, NaN where a regulator meets itself; one that was not measured never does."""
    z = found.z.copy()
    measured = np.flatnonzero(found.inputs < n_genes)
    z[measured, found.inputs[measured]] = np.nan
    return z


def _signed(
    effect: Float64[np.ndarray, "regulators genes"], log_odds: Float64[np.ndarray, "regulators genes"]
) -> Float64[np.ndarray, "regulators genes"]:
    """log(1 + odds) with the sign of regulation: a knock-down lowers what its gene activates."""
    return -np.sign(effect) * _log_one_plus(log_odds)


def _log_one_plus(log_odds: Float64[np.ndarray, "regulators genes"]) -> Float64[np.ndarray, "regulators genes"]:
    """log(1 + odds); NaN stays."""
    return np.maximum(log_odds, 0) + np.log1p(np.exp(-np.abs(log_odds)))
