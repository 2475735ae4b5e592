"""The optimisers' arithmetic, compiled: every number is read and written once.

Vectors are whole matrices, flat; a block is given by the rows and columns of the matrix that its gradient is of.
"""

from typing import no_type_check  # tests check types at run time by wrapping functions, which numba cannot compile

import numpy as np
import torch
from numba import njit
from torch import Tensor


def is_compiled(*tensors: Tensor) -> bool:
    """Whether the kernels take such tensors."""
    return all(
        tensor.device.type == "cpu" and tensor.dtype in {torch.float32, torch.float64} and tensor.is_contiguous()
        for tensor in tensors
    )


@njit(nogil=True, cache=True)
@no_type_check
def gather(rows, values, columns, out):
    """`out`: the entries rows x columns of a matrix."""
    for i in range(len(rows)):
        values_row, out_row = values[rows[i]], out[i]
        for j in range(len(columns)):
            out_row[j] = values_row[columns[j]]


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def rmsprop(values, gradient, square, rate, kept, new, epsilon):
    """RMSprop: square = kept square + new gradient^2; values -= rate gradient / (sqrt(square) + epsilon)."""
    for i in range(len(values)):
        square[i] = kept * square[i] + new * gradient[i] * gradient[i]
        values[i] -= rate * gradient[i] / (np.sqrt(square[i]) + epsilon)


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def rmsprop_block(rows, gradient, columns, values, square, rate, kept, new, epsilon):
    """As `rmsprop`, of the entries rows x columns alone."""
    for i in range(len(rows)):
        values_row, square_row, gradient_row = values[rows[i]], square[rows[i]], gradient[i]
        for j in range(len(columns)):
            at, slope = columns[j], gradient_row[j]
            square_row[at] = kept * square_row[at] + new * slope * slope
            values_row[at] -= rate * slope / (np.sqrt(square_row[at]) + epsilon)


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def adam(values, gradient, mean, square, rate, of_mean, kept, new, root, epsilon, left):
    """Adam: the moments decay, then values = left values - rate mean / (sqrt(square) / root + epsilon).

    mean += of_mean (gradient - mean); square = kept square + new gradient^2.
    """
    for i in range(len(values)):
        mean[i] += of_mean * (gradient[i] - mean[i])
        square[i] = kept * square[i] + new * gradient[i] * gradient[i]
        values[i] = left * values[i] - rate * mean[i] / (np.sqrt(square[i]) / root + epsilon)


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def adam_block(rows, gradient, columns, values, mean, square, rate, of_mean, kept, new, root, epsilon, left):
    """As `adam`, of the entries rows x columns alone."""
    for i in range(len(rows)):
        values_row, mean_row, square_row, gradient_row = values[rows[i]], mean[rows[i]], square[rows[i]], gradient[i]
        for j in range(len(columns)):
            at, slope = columns[j], gradient_row[j]
            mean_row[at] += of_mean * (slope - mean_row[at])
            square_row[at] = kept * square_row[at] + new * slope * slope
            step = rate * mean_row[at] / (np.sqrt(square_row[at]) / root + epsilon)
            values_row[at] = left * values_row[at] - step


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def lion(values, gradient, mean, rate, first, of_first, second, of_second, left):
    """Lion: values = left values - rate sign(first mean + of_first gradient); then the mean moves on."""
    for i in range(len(values)):
        towards = first * mean[i] + of_first * gradient[i]
        values[i] = left * values[i] - rate * np.sign(towards)
        mean[i] = second * mean[i] + of_second * gradient[i]


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def rmsprop_of_models(models, values, gradient, square, numbers):
    """`rmsprop` of some rows, each a model's, with a row of numbers of its own."""
    for at in models:
        own = numbers[at]
        rmsprop(values[at], gradient[at], square[at], own[0], own[1], own[2], own[3])


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def adam_of_models(models, values, gradient, mean, square, numbers):
    """`adam` of some rows, each a model's, with a row of numbers of its own."""
    for at in models:
        own = numbers[at]
        adam(values[at], gradient[at], mean[at], square[at], own[0], own[1], own[2], own[3], own[4], own[5], own[6])


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def lion_of_models(models, values, gradient, mean, numbers):
    """`lion` of some rows, each a model's, with a row of numbers of its own."""
    for at in models:
        own = numbers[at]
        lion(values[at], gradient[at], mean[at], own[0], own[1], own[2], own[3], own[4], own[5])
