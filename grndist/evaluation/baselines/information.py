"""Compiled loops of PIDC: bins by Bayesian blocks, and unique information between genes in bins."""

from typing import no_type_check

import numpy as np
from numba import njit

FALSE_ALARMS = 0.05  # p0 of the prior on the number of blocks


@njit(nogil=True, cache=True)
@no_type_check
def block_edges(values, counts):
    """Edges of the bins of one gene: Bayesian blocks of sorted different values, each seen `counts` times.

    Scargle et al. 2013, eq. 19 and 21, as the histograms of astroML and Discretizers.jl: cells of the partition end
    half-way between values, a block of n values and width w is worth n log(n / w), and each block costs
    4 - log(73.53 p0 k^-0.478) in a partition of the first k values. Time grows with the square of their number.
    """
    n = len(values)
    edges = np.empty(n + 1)
    edges[0], edges[n] = values[0], values[n - 1]
    for i in range(1, n):
        edges[i] = 0.5 * (values[i - 1] + values[i])
    before = np.zeros(n + 1)  # number of cells below each value
    before[1:] = np.cumsum(counts)
    log = np.log(np.maximum(np.arange(before[n] + 1), 1.0))
    best, start = np.zeros(n + 1), np.zeros(n, np.int64)
    for k in range(1, n + 1):
        price = 4 - np.log(73.53 * FALSE_ALARMS * k**-0.478)
        best[k] = -np.inf
        for i in range(k):  # the last block has the values i .. k - 1
            inside = before[k] - before[i]
            worth = best[i] + inside * (log[int(inside)] - np.log(edges[k] - edges[i])) - price
            if worth > best[k]:
                best[k], start[k - 1] = worth, i
    found, k = [edges[n]], n
    while k > 0:
        k = start[k - 1]
        found.append(edges[k])
    return np.array(found[::-1])


@njit(nogil=True, cache=True)
@no_type_check
def unique_shares(bins, n_bins, target):
    """For each gene x the sum over third genes y of Unique(target; x | y) / I(target; x); 0 for the target itself.

    Redundancy of x and y about the target z (Williams and Beer 2010) is the least specific information, in the mean:
    R = sum_z p(z) min_{x, y} sum_x p(x | z) log2(p(x | z) / p(x)), and Unique(z; x | y) = I(z; x) - R.

    Args:
        bins: [genes, cells] bin of every gene in every cell.
        n_bins: of each gene.
        target: number of a gene.
    """
    n_genes, n_cells = bins.shape
    width, at = n_bins[target], bins[target]
    specific = np.zeros((width, n_genes))  # p(z) x specific information
    inverse = np.zeros(n_genes)  # of the mutual information; 0 where there is none
    mutual = np.zeros(n_genes)
    for x in range(n_genes):
        if x == target:
            continue
        joint = np.zeros((width, n_bins[x]))
        for c in range(n_cells):
            joint[at[c], bins[x, c]] += 1
        of_target, of_x = joint.sum(axis=1), joint.sum(axis=0)
        for b in range(width):
            for a in range(n_bins[x]):
                if joint[b, a] > 0:
                    specific[b, x] += joint[b, a] / n_cells * np.log2(joint[b, a] * n_cells / (of_target[b] * of_x[a]))
            mutual[x] += specific[b, x]
        if mutual[x] > 0:
            inverse[x] = 1 / mutual[x]
    total, redundancy = np.zeros(n_genes), np.zeros(n_genes)
    for x in range(n_genes):
        if x == target:
            continue
        redundancy[x + 1 :] = 0
        for b in range(width):
            own, row = specific[b, x], specific[b]
            for y in range(x + 1, n_genes):
                redundancy[y] += min(own, row[y])
        redundancy[target] = np.inf  # no third gene
        found = 0.0
        for y in range(x + 1, n_genes):
            found += max(mutual[x] - redundancy[y], 0.0)
            total[y] += max(mutual[y] - redundancy[y], 0.0)
        total[x] += found
    return total * inverse
