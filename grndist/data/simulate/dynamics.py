"""The dynamics of a block of cells, and how its levels are counted. Knows nothing of who is perturbed."""

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64
from scipy import sparse

from grndist.data.simulate.config import Conditions

BOUND = 2.5  # regulation changes log production by less than this
HILL_COEFFICIENT = 2
STEP, STEPS = 0.2, 40  # of Euler-Maruyama, in mRNA lifetimes: 8 lifetimes reach the steady state


def steady_state(
    rate: Float32[np.ndarray, "genes cells"],
    weights: sparse.csr_array,
    regulators: Int64[np.ndarray, " regulators"],
    molecules: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "genes cells"]:
    """Integrate the chemical Langevin equation (Gillespie 2000) from the basal level by Euler-Maruyama steps."""
    level = np.ones_like(rate)
    for _ in range(STEPS):
        power = level[regulators] ** HILL_COEFFICIENT
        regulation = weights @ (power / (1 + power) - np.float32(0.5))
        production = rate * np.exp(BOUND * np.tanh(regulation / BOUND))
        noise = np.sqrt(STEP / molecules * (production + level)) * rng.standard_normal(rate.shape, dtype=np.float32)
        level = np.maximum(level + STEP * (production - level) + noise, 0)
    return level


def count(
    mean: Float[np.ndarray, "cells genes"], conditions: Conditions, rng: np.random.Generator
) -> Int32[np.ndarray, "cells genes"]:
    """Draw negative-binomial counts (a gamma-Poisson mixture), some of them lost."""
    seen = rng.poisson(mean * rng.standard_gamma(conditions.dispersion, mean.shape) / conditions.dispersion)
    kept = rng.random(mean.shape) >= conditions.dropout / (1 + mean)
    return np.where(kept, seen, 0).astype(np.int32)
