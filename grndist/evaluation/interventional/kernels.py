"""Compiled comparison of groups of cells with the control cells, which are sorted once for each target.

A group of n cells costs n log n and a search of n steps among the controls, of which there may be many more: between
two values of the group its distribution function is level, and the area between it and the controls' follows from the
controls' running sums on either side of the one place where the two cross.
"""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
@no_type_check
def compare_pairs(values, n_controls, target, start, stop, out):
    """Fill `out` [pairs, 3] with what `compare` gives for each pair; pairs of one target stand together.

    `values` [targets, cells] has the control cells first, and those of pair i in start[i] .. stop[i].
    """
    last = -1
    for pair in range(len(target)):
        row = target[pair]
        if row != last:
            control = np.sort(values[row, :n_controls].astype(np.float64))
            sums, ties = running_sums(control), tie_term(control)
            last = row
        group = np.sort(values[row, start[pair] : stop[pair]].astype(np.float64))
        out[pair, 0], out[pair, 1], out[pair, 2] = compare(control, sums, ties, group)


@njit(nogil=True, cache=True)
@no_type_check
def compare_all(values, n_controls, bounds, out):
    """Fill `out` [targets, groups, 4] with what `compare` gives, and with the group's mean minus the controls'.

    `values` [targets, cells] has the control cells first, and those of group i in bounds[i] .. bounds[i + 1].
    """
    for row in range(len(values)):
        control = np.sort(values[row, :n_controls].astype(np.float64))
        sums, ties = running_sums(control), tie_term(control)
        base, mean = control[n_controls // 2], sums[n_controls] / n_controls
        for group in range(len(bounds) - 1):
            own = np.sort(values[row, bounds[group] : bounds[group + 1]].astype(np.float64))
            found = compare(control, sums, ties, own)
            out[row, group, 0], out[row, group, 1], out[row, group, 2] = found
            out[row, group, 3] = np.sum(own - base) / len(own) - mean


@njit(nogil=True, cache=True)
@no_type_check
def compare(control, sums, ties, group):
    """U of the group, the tie term sum t^3 - t of both together, and the Wasserstein distance; both are sorted."""
    n_controls, n_group, base = len(control), len(group), control[len(control) // 2]
    wins, area, before, area_before = 0.0, 0.0, 0.0, 0.0  # areas are times n_controls
    passed, first = 0, 0
    while first < n_group:
        value, after = group[first], first + 1
        while after < n_group and group[after] == value:
            after += 1
        lower = passed + np.searchsorted(control[passed:], value)
        upper = lower + np.searchsorted(control[lower:], value, side="right")
        tied, own = float(upper - lower), float(after - first)
        wins += own * (lower + tied / 2)
        ties += ((tied + own) ** 3 - (tied + own)) - (tied**3 - tied)

        below = upper * (value - base) - sums[upper]  # area below the controls' distribution function up to `value`
        if first == 0:
            area += below
        else:
            level, crossing = first * n_controls / n_group, first * n_controls // n_group
            cut, below_cut = before, area_before
            if control[crossing] >= value:
                cut, below_cut = value, below
            elif control[crossing] > before:
                cut = control[crossing]
                below_cut = crossing * (cut - base) - sums[crossing]
            area += level * (cut - before) - (below_cut - area_before)
            area += (below - below_cut) - level * (value - cut)
        before, area_before, passed, first = value, below, upper, after
    area += (sums[n_controls] - sums[passed]) - (n_controls - passed) * (before - base)
    return wins, ties, max(area, 0.0) / n_controls


@njit(nogil=True, cache=True)
@no_type_check
def running_sums(control):
    """Sums of the first 0, 1, 2, ... values minus the middle one, with the rounding made up for (Kahan)."""
    base, total, lost = control[len(control) // 2], 0.0, 0.0
    sums = np.zeros(len(control) + 1)
    for at in range(len(control)):
        term = (control[at] - base) - lost
        new = total + term
        lost = (new - total) - term
        total = new
        sums[at + 1] = total
    return sums


@njit(nogil=True, cache=True)
@no_type_check
def tie_term(ascending):
    """Sum of t^3 - t over the sizes t of groups of equal values."""
    term, first = 0.0, 0
    for at in range(1, len(ascending) + 1):
        if at == len(ascending) or ascending[at] != ascending[first]:
            size = float(at - first)
            term += size**3 - size
            first = at
    return term
