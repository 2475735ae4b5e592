"""Compiled loops of the tables: a piecewise polynomial at many places, and what its gradient needs."""

from typing import no_type_check

from numba import njit


@njit(nogil=True, cache=True)
@no_type_check
def polynomial(x, low, steps, coefficients, out):
    """`out` [outputs, places]: the polynomial of every place's interval; `steps` is intervals per unit of x."""
    last, degree = len(coefficients) - 1, coefficients.shape[2] - 1
    for place in range(len(x)):
        position = (x[place] - low) * steps
        interval = min(max(int(position), 0), last)
        t = position - interval
        for output in range(len(out)):
            c = coefficients[interval, output]
            value = c[degree]
            for power in range(degree - 1, -1, -1):
                value = value * t + c[power]
            out[output, place] = value


@njit(nogil=True, cache=True)
@no_type_check
def polynomial_slope(x, low, steps, coefficients, gradient, out):
    """`out` [places]: sum over outputs of `gradient` times the derivative."""
    last, degree = len(coefficients) - 1, coefficients.shape[2] - 1
    for place in range(len(x)):
        position = (x[place] - low) * steps
        interval = min(max(int(position), 0), last)
        t = position - interval
        total = 0.0
        for output in range(len(gradient)):
            c = coefficients[interval, output]
            slope = degree * c[degree]
            for power in range(degree - 1, 0, -1):
                slope = slope * t + power * c[power]
            total += gradient[output, place] * slope
        out[place] = total * steps


@njit(nogil=True, cache=True)
@no_type_check
def add_powers(x, low, steps, gradient, out):
    """Add the gradient of the coefficients, gradient times 1, t, ..., to `out` [intervals, outputs, powers]."""
    last, powers = len(out) - 1, out.shape[2]
    for place in range(len(x)):
        position = (x[place] - low) * steps
        interval = min(max(int(position), 0), last)
        t = position - interval
        for output in range(len(gradient)):
            term = float(gradient[output, place])
            sums = out[interval, output]
            for power in range(powers):
                sums[power] += term
                term *= t
