"""PIDC (Chan, Stumpf and Babtie 2017): how much of what two genes say of each other no third gene says.

After NetworkInference.jl, with its defaults: bins by Bayesian blocks, probabilities by maximum likelihood.

    PUC(x, z) = sum_y Unique(z; x | y) / I(z; x) + Unique(x; z | y) / I(x; z)     proportional unique contribution
    weight    = F_x(PUC(x, z)) + F_z(PUC(x, z))       F_x: Gamma distribution fitted to the scores of x with all genes

One thing differs: a score of 0, which no Gamma distribution has, is left out of the fit and has F = 0 (there, such a
gene's weights are of another formula). A gene that never changes therefore has no edges.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.special import digamma, gammainc, polygamma

from grndist.evaluation.baselines.information import block_edges, unique_shares
from grndist.machine import available_cpus
from grndist.progress import track

STEPS = 100  # of Newton's method at most
LEAST_SPREAD = 1e-12  # log of mean - mean of logs of scores that are all the same


def pidc_weights(values: Float[np.ndarray, "cells genes"]) -> Float64[np.ndarray, "genes genes"]:
    """The weight of every pair, between 0 and 2; symmetric, 0 for a gene and itself.

    Time grows with genes^3 and with genes x cells^2; memory holds the bins and two matrices of genes x genes.
    """
    return in_context(puc(*binned(values)))


def binned(
    values: Float[np.ndarray, "cells genes"],
) -> tuple[Int64[np.ndarray, "genes cells"], Int64[np.ndarray, " genes"]]:
    """The bin of every gene in every cell, and each gene's number of bins; 1 for a gene that never changes."""
    bins = np.zeros(values.shape[::-1], dtype=np.int64)
    with ThreadPoolExecutor(available_cpus()) as pool:
        edges = list(track(pool.map(_edges, values.T), "pidc: bins", len(bins)))
    for gene, inner in enumerate(edges):
        bins[gene] = np.searchsorted(inner, values[:, gene], side="right")
    return bins, np.array([len(inner) + 1 for inner in edges], dtype=np.int64)


def puc(
    bins: Int64[np.ndarray, "genes cells"], n_bins: Int64[np.ndarray, " genes"]
) -> Float64[np.ndarray, "genes genes"]:
    """Proportional unique contribution of every pair; symmetric, 0 for a gene and itself."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        shares = pool.map(partial(unique_shares, bins, n_bins), range(len(bins)))
        found = np.array(list(track(shares, "pidc: triplets", len(bins))))
    return found + found.T


def in_context(scores: Float64[np.ndarray, "genes genes"]) -> Float64[np.ndarray, "genes genes"]:
    """F_x + F_z of the scores of x and z: see the module's text."""
    there = scores > 0
    count = np.maximum(there.sum(axis=1), 1)
    mean = np.where(there.any(axis=1), scores.sum(axis=1) / count, 1.0)
    log = np.log(scores, out=np.zeros_like(scores), where=there)
    shape = _gamma_shape(np.maximum(np.log(mean) - log.sum(axis=1) / count, LEAST_SPREAD))
    share = gammainc(shape[:, None], scores * (shape / mean)[:, None])
    return share + share.T


def _edges(values: Float[np.ndarray, " cells"]) -> Float64[np.ndarray, " edges"]:
    """Where one bin of a gene ends and the next begins."""
    different, counts = np.unique(values.astype(np.float64), return_counts=True)
    return block_edges(different, counts)[1:-1] if len(different) > 1 else np.empty(0)


def _gamma_shape(spread: Float64[np.ndarray, " genes"]) -> Float64[np.ndarray, " genes"]:
    """The a of log(a) - digamma(a) = spread: maximum likelihood, from the approximation of Minka (2002)."""
    shape = (3 - spread + np.sqrt((spread - 3) ** 2 + 24 * spread)) / (12 * spread)
    for _ in range(STEPS):
        step = (np.log(shape) - digamma(shape) - spread) / (1 / shape - polygamma(1, shape))
        after = np.where(step < shape, shape - step, shape / 2)
        if np.allclose(after, shape, rtol=1e-14, atol=0):
            break
        shape = after
    return shape
