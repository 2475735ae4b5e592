"""The optimum of CaTran-D's loss over all W without a diagonal, in closed form, and what it says of each coefficient.

With M = E[x x^T], B = E[z x^T] and K = (M + l2 I)^-1, the row of target t minimises w M w^T - 2 w B_t^T + l2 |w|^2
under w_t = 0. Its Lagrange condition gives

    W_t = B_t K - (B_t K)_t / K_tt  K_t          (an unmeasured input is no target and needs no condition)

so one Cholesky factor and one product serve all targets. The least loss of t is E[z_t^2] - W_t . B_t.
"""

import numpy as np
from jaxtyping import Float64
from scipy.linalg import lapack

from grndist.data.moments.kernels import mirror_upper
from grndist.errors import UserError

Square = Float64[np.ndarray, "inputs inputs"]
Cross = Float64[np.ndarray, "targets inputs"]

ROWS = 256  # of W that are made at once


class SolveError(UserError):
    """The optimum is not unique."""


def precision(second: Square, ridge: float) -> Square:
    """K of the second moments `second`, whose memory it takes over.

    Raises:
        SolveError: it is singular, as without a ridge when two inputs always agree.
    """
    second[np.diag_indices(len(second))] += ridge
    factor, failed = lapack.dpotrf(second.T, lower=1, overwrite_a=1)  # symmetric: the transpose is in LAPACK's order
    if failed:
        raise SolveError(
            f"model.ridge={ridge:g}: the second moments of the inputs are singular, so no one network is the best; "
            "raise it"
        )
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    mirror_upper(inverse.T)
    return inverse.T


def optimum(inverse: Square, cross: Cross) -> Cross:
    """W of the module's text; W[t, t] is exactly 0."""
    weights = cross @ inverse
    own = weights.diagonal() / inverse.diagonal()[: len(cross)]
    for first in range(0, len(cross), ROWS):
        rows = slice(first, first + ROWS)
        weights[rows] -= own[rows, None] * inverse[: len(cross)][rows]
    np.fill_diagonal(weights, 0.0)
    return weights


def residual(
    weights: Cross, cross: Cross, target_square: Float64[np.ndarray, " targets"], expression_ridge: float
) -> Float64[np.ndarray, " targets"]:
    """Root of each target's least penalised loss plus the ridge that its own expression would have.

    W[t, s] / sqrt(K_ss) / residual[t] is then the partial correlation of a covariance shrunk by that ridge, wherever
    neither gene is perturbed. Never 0: a perfect prediction leaves its rounding, and a target that is 0 in all cells,
    whose weights are 0, has 1.
    """
    least = target_square - np.einsum("ts,ts->t", weights, cross)
    left = np.maximum(least, np.finfo(np.float64).eps * target_square) + expression_ridge
    return np.sqrt(np.where(left > 0, left, 1))
