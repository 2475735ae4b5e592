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
from grndist.evaluation.baselines.pidc import pidc_weights
from grndist.evaluation.baselines.simple import correlation, scatter
from grndist.machine import available_memory

LOG_SCALE = ExpressionConfig()
MOST_GENES = 5_000  # of PIDC
MOST_CELLS = 20_000
GIB = 2**30


class BaselineError(UserError):
    """A baseline cannot be had from these cells, or not from so many genes."""


@dataclass(frozen=True)
class Evidence:
    """Weights of the edges of some regulators; a positive one activates, where signs mean anything."""

    regulators: Sequence[str]
    targets: Sequence[str]
    weights: Float[np.ndarray, "regulators targets"]


def dense_blocks(view: View) -> Iterator[Float32[np.ndarray, "cells genes"]]:
    """The expression of a view's cells, block by block."""
    for rows, stored in view.whole_rows():
        yield sparse.csr_matrix(expression(stored, view.totals[rows], view, LOG_SCALE)).toarray()


def alphabetical(view: View) -> tuple[list[str], Float32[np.ndarray, "cells genes"]]:
    """The genes in alphabetical order, and the expression of all cells.

    Raises:
        BaselineError: twice that does not fit into memory.
    """
    needed, there = 4 * view.n_cells * view.n_genes, available_memory()
    if 2 * needed > there:
        raise BaselineError(
            f"{view.place}: {view.n_cells:,} cells x {view.n_genes:,} genes take {needed / GIB:.1f} GiB and as much "
            f"again to work on, and {there / GIB:.1f} GiB are free; choose fewer of them (cells.*, genes.*)"
        )
    names, values = view.panel.names, np.empty((view.n_cells, view.n_genes), np.float32)
    order, first = sorted(range(view.n_genes), key=names.__getitem__), 0
    for block in dense_blocks(view):
        values[first : first + len(block)] = block[:, order]
        first += len(block)
    return [names[column] for column in order], values


def of_correlation(view: View) -> Evidence:
    """Pearson correlation over all cells, perturbed ones too; the same in both directions."""
    return Evidence(view.panel.names, view.panel.names, correlation(dense_blocks(view)))


def of_partial_correlation(view: View) -> Evidence:
    """Correlation given all other genes, of the correlation matrix shrunk by a half; the same in both directions."""
    return Evidence(view.panel.names, view.panel.names, partial_correlation(scatter(dense_blocks(view))))


def of_difference_log(view: View) -> Evidence:
    """Mean of control cells minus mean of the cells in which the regulator alone is perturbed, in log units."""
    found = _effects(view)
    return Evidence(_names(view, found), view.panel.names, -found.log)


def of_difference_z(view: View) -> Evidence:
    """The same in standard errors: deviation over all cells x sqrt(1 / perturbed + 1 / control cells)."""
    found = _effects(view)
    return Evidence(_names(view, found), view.panel.names, -found.z)


def of_difference_odds(view: View) -> Evidence:
    """log(1 + odds) that the z is of an edge (`effects.posterior_log_odds`), with the sign of regulation."""
    found = _effects(view)
    z = _without_self(found, view.n_genes)
    return Evidence(_names(view, found), view.panel.names, _signed(z, posterior_log_odds(z)))


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
    return Evidence(view.panel.names, view.panel.names, weights)


def of_pidc(view: View) -> Evidence:
    """PIDC over all cells; the same in both directions, without signs."""
    for what, number, most in (("genes", view.n_genes, MOST_GENES), ("cells", view.n_cells, MOST_CELLS)):
        if number > most:
            raise BaselineError(
                f"{view.place}: pidc is for {most:,} {what} at most and there are {number:,}; its time grows with "
                f"genes^3 and with cells^2; choose fewer (genes.highly_variable, cells.where), or another method"
            )
    names, values = alphabetical(view)
    return Evidence(names, names, pidc_weights(values))


EVIDENCE: dict[str, Callable[[View], Evidence]] = {
    "correlation": of_correlation,
    "partial_correlation": of_partial_correlation,
    "mean_difference_log": of_difference_log,
    "mean_difference_z": of_difference_z,
    "mean_difference_odds": of_difference_odds,
    "blend": of_blend,
    "pidc": of_pidc,
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
