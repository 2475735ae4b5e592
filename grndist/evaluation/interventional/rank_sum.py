"""P values of the rank-sum test as SciPy's `mannwhitneyu` gives them with its defaults."""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import ndtr

SMALL = 8  # up to so many values on one side, and without ties, SciPy's test is the exact one


def needs_exact_test(
    n_controls: int, n: Int64[np.ndarray, " pairs"], ties: Float64[np.ndarray, " pairs"]
) -> Bool[np.ndarray, " pairs"]:
    """Whether `method="auto"` takes the exact test."""
    return ((n <= SMALL) | (n_controls <= SMALL)) & (ties == 0)


def asymptotic_p(
    wins: Float64[np.ndarray, " pairs"],
    ties: Float64[np.ndarray, " pairs"],
    n: Int64[np.ndarray, " pairs"],
    n_controls: int,
) -> Float64[np.ndarray, " pairs"]:
    """Two-sided, by the normal approximation with corrections for continuity and ties; 1 where all values are equal.

    Args:
        wins: U, the pairs of cells in which the perturbed one is higher, ties counting half.
        ties: sum of t^3 - t over the groups of equal values.
        n: perturbed cells.
        n_controls: control cells.
    """
    own, controls = n.astype(np.float64), float(n_controls)
    product, total = own * controls, own + controls
    variance = product / 12 * ((total + 1) - ties / (total * (total - 1)))
    excess = np.maximum(wins, product - wins) - product / 2 - 0.5
    with np.errstate(divide="ignore"):
        z = excess / np.sqrt(np.maximum(variance, 0))  # excess is -0.5 where nothing varies
    return np.clip(2 * ndtr(-z), 0, 1)
