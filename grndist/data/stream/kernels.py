"""The inner loops over non-zero values, compiled. Plain definitions of what they compute: `normalise`.

No kernel is parallel: numba's threads would change how many PyTorch uses, and with it the last bits of a run.
"""

from typing import no_type_check  # tests check types at run time by wrapping functions, which numba cannot compile

import numpy as np
from numba import njit

TABLE = 32  # counts below this have their logarithm looked up, one table a cell


@njit(nogil=True, cache=True)
@no_type_check
def densify(data, indices, indptr, rows, slot, out):
    """Rows of a CSR as dense float32 [rows, columns]: column c of the matrix goes to slot[c], nowhere if negative."""
    for i in range(len(rows)):
        row = out[i]
        row[:] = 0
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            place = slot[indices[j]]
            if place >= 0:
                row[place] = data[j]


@njit(nogil=True, cache=True)
@no_type_check
def densify_log1p(data, indices, indptr, rows, slot, scale, out):
    """As `densify`, with log(1 + value x the row's scale). Small counts are looked up, bit for bit the same."""
    table = np.empty(TABLE, dtype=np.float32)
    for i in range(len(rows)):
        row = out[i]
        row[:] = 0
        for count in range(TABLE):
            table[count] = np.log1p(count * scale[i])
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            place = slot[indices[j]]
            if place >= 0:
                value = data[j]
                small = int(value)
                row[place] = table[small] if small < TABLE and small == value else np.log1p(value * scale[i])


@njit(nogil=True, cache=True)
@no_type_check
def clr_scale(data, indptr, rows, n_genes, out):
    """1 / exp(mean of log(1 + value) over all genes) of each row: what Seurat's CLR multiplies by before its log1p."""
    for i in range(len(rows)):
        total = 0.0
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            total += np.log1p(float(data[j]))
        out[i] = np.exp(-total / n_genes)


@njit(nogil=True, cache=True)
@no_type_check
def row_bounds(data, indices, indptr, rows, member, low, high):
    """Smallest and largest stored value of each row among the columns where `member`, zeros included."""
    n_members = member.sum()
    for i in range(len(rows)):
        seen = 0
        smallest, largest = np.inf, 0.0
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            if member[indices[j]]:
                seen += 1
                value = float(data[j])
                smallest, largest = min(smallest, value), max(largest, value)
        low[i] = smallest if seen == n_members and seen > 0 else 0.0
        high[i] = largest


@njit(nogil=True, cache=True)
@no_type_check
def take_rows(data, indices, indptr, rows, out_data, out_indices):
    """Copy the values and columns of some rows of a CSR, one row after the other; return how many."""
    at = 0
    for i in range(len(rows)):
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            out_data[at] = data[j]
            out_indices[at] = indices[j]
            at += 1
    return at
