"""Scores that need no perturbation: chance and correlation, over the cells as they come."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float64

from grndist.seeds import stream

Blocks = Iterable[Float[np.ndarray, "_ genes"]]  # of cells x genes, of any height


def absolute_correlation(blocks: Blocks) -> Float64[np.ndarray, "genes genes"]:
    """Absolute Pearson correlation of every pair of genes; see `correlation`."""
    found = correlation(blocks)
    return np.abs(found, out=found)


def correlation(blocks: Blocks) -> Float64[np.ndarray, "genes genes"]:
    """Pearson correlation of every pair of genes over the cells of all blocks; symmetric.

    A gene with one value in all cells correlates 0 with every gene, itself included.

    Raises:
        ValueError: there is no cell.
    """
    covariance = scatter(blocks)
    variance = covariance.diagonal()
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros(len(variance)), where=variance > 0)
    # outer first: then (i, j) and (j, i) get the same bits and stay tied
    covariance *= np.outer(scale, scale)
    return np.clip(covariance, -1.0, 1.0, out=covariance)


def scatter(blocks: Blocks) -> Float64[np.ndarray, "genes genes"]:
    """Covariance of every pair of genes, times the number of cells; exactly 0 for a gene that never changes.

    One pass in float64 over values shifted by the first block's means, which keeps the sums of squares free of
    cancellation. Holds two matrices of genes x genes.

    Raises:
        ValueError: there is no cell.
    """
    cells, shift = 0, None
    for block in blocks:
        if len(block) == 0:
            continue
        if shift is None:
            shift = block.mean(axis=0, dtype=np.float64)
            sums, products = np.zeros(len(shift)), np.zeros((len(shift), len(shift)))
            lowest, highest = block[0].copy(), block[0].copy()
        shifted = block - shift  # [cells, genes], float64
        cells += len(block)
        sums += shifted.sum(axis=0)
        products += shifted.T @ shifted
        np.minimum(lowest, block.min(axis=0), out=lowest)
        np.maximum(highest, block.max(axis=0), out=highest)
    if shift is None:
        raise ValueError("no cells to correlate genes over")
    products -= np.outer(sums, sums) / cells
    constant = (lowest == highest) | (products.diagonal() <= 0)
    products[constant], products[:, constant] = 0, 0
    return products


def random_scores(n_edges: int, seed: int, draw: int) -> Float[np.ndarray, " edges"]:
    """Uniform scores in [0, 1): draw number `draw` of a ranking by chance."""
    return stream(seed, "random-baseline", draw).random(n_edges)
