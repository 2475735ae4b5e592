"""Scores that need no model: absolute correlation, and chance."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float64

from grndist.seeds import stream


def absolute_correlation(
    blocks: Iterable[Float[np.ndarray, "_ genes"]],  # blocks of cells x genes, of any height
) -> Float64[np.ndarray, "genes genes"]:
    """Absolute Pearson correlation of every pair of genes over the cells of all blocks; symmetric.

    One pass in float64 over values shifted by the first block's means, which keeps the sums of squares free of
    cancellation. A gene with one value in all cells correlates 0 with every gene, itself included.

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
    covariance = products - np.outer(sums, sums) / cells
    varies = (lowest < highest) & (covariance.diagonal() > 0)
    scale = np.zeros(len(shift))
    scale[varies] = 1 / np.sqrt(covariance.diagonal()[varies])
    # outer first: then (i, j) and (j, i) get the same bits and stay tied
    return np.minimum(np.abs(covariance * np.outer(scale, scale)), 1.0)


def random_scores(n_edges: int, seed: int, draw: int) -> Float[np.ndarray, " edges"]:
    """Uniform scores in [0, 1): draw number `draw` of a ranking by chance."""
    return stream(seed, "random-baseline", draw).random(n_edges)
