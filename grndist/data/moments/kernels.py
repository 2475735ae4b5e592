"""The loops of the pass, compiled."""

from typing import no_type_check  # tests check types at run time by wrapping functions, which numba cannot compile

import numpy as np
from numba import njit

TILE = 64  # rows and columns that are mirrored at once
PANEL = 1024  # columns of rows that stay in the cache together


@njit(nogil=True, cache=True)
@no_type_check
def gather(q, shift, label, members, n, total, square, own_total, own_square):
    """Turn expression q [cells, genes] into Q in place, and add its sums but for the products (see `sums`)."""
    n_genes = q.shape[1]
    for i in range(q.shape[0]):
        row, group = q[i], label[i]
        n[group] += 1
        for gene in range(n_genes):
            row[gene] -= shift[gene]
        for guide in range(members.shape[1]):
            gene = members[group, guide]
            if 0 <= gene < n_genes:
                value = np.float64(row[gene])
                own_total[group, guide] += value
                own_square[group, guide] += value * value
                row[gene] = 0
        sums = total[group]
        for gene in range(n_genes):
            value = np.float64(row[gene])
            sums[gene] += value
            square[gene] += value * value


@njit(nogil=True, cache=True)
@no_type_check
def by_gene(q, genes):
    """Values other than 0 of some genes, their cells, and where each gene's begin and the last one's end."""
    bounds = np.zeros(len(genes) + 1, dtype=np.int64)
    for i in range(q.shape[0]):
        for at in range(len(genes)):
            bounds[at + 1] += q[i, genes[at]] != 0
    bounds = np.cumsum(bounds)
    values, cells, place = np.empty(bounds[-1], q.dtype), np.empty(bounds[-1], np.int64), bounds[:-1].copy()
    for i in range(q.shape[0]):
        for at in range(len(genes)):
            value = q[i, genes[at]]
            if value != 0:
                values[place[at]], cells[place[at]] = value, i
                place[at] += 1
    return values, cells, bounds


@njit(nogil=True, cache=True)
@no_type_check
def add_rare(q, values, cells, bounds, out):
    """Add to row `at` of `out` the rows of q for gene `at` of `by_gene`, each times its value."""
    for left in range(0, q.shape[1], PANEL):
        for at in range(len(bounds) - 1):
            sums = out[at, left : left + PANEL]
            for j in range(bounds[at], bounds[at + 1]):
                value, row = values[j], q[cells[j], left : left + PANEL]
                for column in range(len(sums)):
                    sums[column] += value * row[column]


@njit(nogil=True, cache=True)
@no_type_check
def move_upper(part, genes, whole):
    """Add the upper triangle of `part`, whose rows and columns are `genes`, to `whole`; `part` is 0 afterwards."""
    for i in range(len(genes)):
        row = whole[genes[i]]
        for j in range(i, len(genes)):
            row[genes[j]] += part[i, j]
            part[i, j] = 0


@njit(nogil=True, cache=True)
@no_type_check
def move_rows(part, genes, whole):
    """Add the rows of `part`, which are `genes`, to those of `whole`; `part` is 0 afterwards."""
    for i in range(len(genes)):
        row = whole[genes[i]]
        for j in range(len(row)):
            row[j] += part[i, j]
            part[i, j] = 0


@njit(nogil=True, cache=True)
@no_type_check
def mirror_upper(whole):
    """Copy the upper triangle to the lower one."""
    n = len(whole)
    for top in range(0, n, TILE):
        for left in range(top, n, TILE):
            for i in range(top, min(top + TILE, n)):
                for j in range(max(left, i + 1), min(left + TILE, n)):
                    whole[j, i] = whole[i, j]
