"""The inner loops of corruption and losses, compiled.

Random numbers are SplitMix64's (Steele, Lea and Flood 2014): number i under a key is a function of both, so cells can
be visited in any order.
"""

from typing import no_type_check  # tests check types at run time by wrapping functions, which numba cannot compile

import numpy as np
from numba import njit

VECTORISED = {"reassoc", "contract", "nsz"}  # sums may be reordered; infinities and NaN keep their meaning


@njit(nogil=True, cache=True, inline="always")
@no_type_check
def below(key, i, n):
    """Random number i of `key`, uniform on 0 .. n - 1; `n` is far below 2^32."""
    z = key + (np.uint64(i) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@njit(nogil=True, cache=True)
@no_type_check
def choose(key, first, n_chosen, chosen):
    """Set exactly `n_chosen` random entries of every row; `first` is the number of the first row under this key.

    Floyd's sampling (Bentley and Floyd 1987) of the chosen or of the others, whichever are fewer.
    """
    n = chosen.shape[1]
    rare = n_chosen <= n - n_chosen
    n_drawn = n_chosen if rare else n - n_chosen
    for c in range(len(chosen)):
        row = chosen[c]
        row[:] = not rare
        for j in range(n - n_drawn, n):
            drawn = below(key, (first + c) * n_drawn + j - (n - n_drawn), j + 1)
            row[j if row[drawn] == rare else drawn] = rare


@njit(nogil=True, cache=True)
@no_type_check
def shuffle(key, first, values):
    """A random order (Fisher and Yates), from random number `first` of the key."""
    for i in range(len(values) - 1, 0, -1):
        j = below(key, first + i, i + 1)
        values[i], values[j] = values[j], values[i]


@njit(nogil=True, cache=True)
@no_type_check
def permute(key, x, hidden, out):
    """`x` with its hidden values in a random order, over all cells and genes."""
    values = np.empty(hidden.sum() + 1, dtype=x.dtype)  # one more, so that the loops need no branch
    at = 0
    for c in range(len(x)):
        for g in range(x.shape[1]):
            values[at] = x[c, g]
            at += hidden[c, g]
    shuffle(key, 0, values[:-1])
    at = 0
    for c in range(len(x)):
        for g in range(x.shape[1]):
            out[c, g] = values[at] if hidden[c, g] else x[c, g]
            at += hidden[c, g]


@njit(nogil=True, cache=True)
@no_type_check
def permute_within_gene(key, x, hidden, out, start, stop):
    """`x` with the hidden values of every gene from `start` to `stop` in a random order over the cells."""
    values = np.empty((stop - start, len(x) + 1), dtype=x.dtype)  # one more, so that the loops need no branch
    at = np.zeros(stop - start, dtype=np.int64)
    for c in range(len(x)):
        for g in range(start, stop):
            values[g - start, at[g - start]] = x[c, g]
            at[g - start] += hidden[c, g]
    for g in range(start, stop):
        shuffle(key, g * len(x), values[g - start, : at[g - start]])
    at[:] = 0
    for c in range(len(x)):
        for g in range(start, stop):
            out[c, g] = values[g - start, at[g - start]] if hidden[c, g] else x[c, g]
            at[g - start] += hidden[c, g]


@njit(nogil=True, cache=True, fastmath=VECTORISED)
@no_type_check
def error_sums(predicted, wanted, hidden, row, delta, start, stop, by_group, totals):
    """Sums of the Huber errors of genes `start` to `stop`: by group of cells, and over hidden and visible entries."""
    half, zero = predicted.dtype.type(0.5), predicted.dtype.type(0)
    for c in range(len(predicted)):
        p, w, is_hidden, sums = predicted[c, start:stop], wanted[c, start:stop], hidden[c, start:stop], by_group[row[c]]
        of_hidden, of_visible = zero, zero
        for g in range(len(p)):
            size = abs(p[g] - w[g])
            within = min(size, delta)
            error = within * (size - half * within)
            sums[start + g] += error
            of_hidden += error if is_hidden[g] else zero
            of_visible += zero if is_hidden[g] else error
        totals[0] += of_hidden
        totals[1] += of_visible


@njit(nogil=True, cache=True, fastmath=VECTORISED)
@no_type_check
def error_gradient(predicted, wanted, hidden, row, delta, d_hidden, d_visible, d_by_group, d_predicted):
    """Gradient of `error_sums` with respect to the predictions."""
    of_hidden, of_visible = predicted.dtype.type(d_hidden), predicted.dtype.type(d_visible)
    for c in range(len(predicted)):
        p, w, is_hidden, of_group, out = predicted[c], wanted[c], hidden[c], d_by_group[row[c]], d_predicted[c]
        for g in range(len(p)):
            slope = min(max(p[g] - w[g], -delta), delta)
            out[g] = slope * ((of_hidden if is_hidden[g] else of_visible) + of_group[g])
