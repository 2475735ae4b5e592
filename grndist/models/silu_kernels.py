"""The SiLU head's inner loops, compiled. Their plain definition is `silu_head.expression`.

float32 takes exp as a polynomial (Cephes' expf, relative error 2e-7), which the compiler turns into vector code;
float64 takes the exact one. The loops run over cells, channels and, innermost, genes in blocks that stay in cache.
"""

from typing import no_type_check  # tests check types at run time by wrapping functions, which numba cannot compile

import numpy as np
from numba import float32, njit
from numba.extending import overload

BLOCK = 512  # genes: a channel's values of a block are 2 KiB
VECTORISED = {"reassoc", "contract", "nsz"}  # sums may be reordered; infinities and NaN keep their meaning


@no_type_check
def sigmoid(z):
    """1 / (1 + exp(-z))."""
    return 1 / (1 + np.exp(-z))


@overload(sigmoid, inline="always")
@no_type_check
def _sigmoid(z):
    return _sigmoid_single if z == float32 else _sigmoid_double


@no_type_check
def _sigmoid_double(z):
    return 1 / (1 + np.exp(-z))


@no_type_check
def _sigmoid_single(z):
    one = np.float32(1)
    x = min(max(-z, np.float32(-87)), np.float32(89))  # exp of the upper bound is infinity, and the sigmoid then 0
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)  # x - n ln 2, in two steps
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * (r * r) + r + one
    two_to_n = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return one / (one + p * two_to_n)


@njit(nogil=True, cache=True, fastmath=VECTORISED, error_model="numpy")
@no_type_check
def head(y, level, slope, weight, bias, out):
    """out[c, g] = bias + sum over k of weight[k] SiLU(level[k, g] + y[c, g] slope[k])."""
    for first in range(0, y.shape[1], BLOCK):
        block = slice(first, min(first + BLOCK, y.shape[1]))
        for c in range(len(y)):
            y_row, row = y[c, block], out[c, block]
            row[:] = bias
            for k in range(len(slope)):
                level_row, slope_k, weight_k = level[k, block], slope[k], weight[k]
                for g in range(len(row)):
                    z = level_row[g] + y_row[g] * slope_k
                    row[g] += weight_k * (z * sigmoid(z))


@njit(nogil=True, cache=True, fastmath=VECTORISED, error_model="numpy")
@no_type_check
def head_gradient(d_out, y, level, slope, weight, d_y, d_level, d_slope, d_weight):
    """Gradients of `head`; d_y is set, the others are added to."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for first in range(0, y.shape[1], BLOCK):
        block = slice(first, min(first + BLOCK, y.shape[1]))
        for c in range(len(y)):
            y_row, d_out_row, d_y_row = y[c, block], d_out[c, block], d_y[c, block]
            d_y_row[:] = zero
            for k in range(len(slope)):
                level_row, d_level_row, slope_k, weight_k = level[k, block], d_level[k, block], slope[k], weight[k]
                of_slope, of_weight = zero, zero
                for g in range(len(y_row)):
                    z = level_row[g] + y_row[g] * slope_k
                    s = sigmoid(z)
                    silu = z * s
                    d_z = d_out_row[g] * weight_k * (s + silu * (one - s))
                    of_weight += d_out_row[g] * silu
                    of_slope += d_z * y_row[g]
                    d_level_row[g] += d_z
                    d_y_row[g] += d_z * slope_k
                d_slope[k] += of_slope
                d_weight[k] += of_weight
