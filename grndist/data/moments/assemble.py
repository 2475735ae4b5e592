"""Moments of a linear model's inputs and targets over all cells, from the sums.

With z' as in `groups`, own(c, s) whether s is perturbed in c, and k its strength there, else 0:

    x[c, s] = gain z'[c, s] - k[c, s]                                 z' = 0 for an input that was not measured
    C E[x x^T]  = gain^2 Z - gain (U + U^T) + sum_labels n k k^T      Z = sum_c z' z'^T
    C E[z' x^T] = gain Z - U                                          U = sum_c z' k^T = total^T k, over labels

z' = Q / D - (1 - own) a, with deviations D and a = offset / D, so that Z follows from the products P = Q^T Q:

    Z = P / (D D^T) - w a^T - a w^T + E + E^T,       w = sum_c z' + (C / 2 - n_own) a
    E[g, h] = a_h sum_{c: own(c, h)} z'[c, g] - a_g a_h n_both(g, h) / 2        0 but for perturbed h
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import DTypeLike
from scipy import sparse

from grndist.data.moments import kernels
from grndist.data.moments.groups import Groups
from grndist.data.moments.sums import Sums
from grndist.data.perturbations import Perturbations

ROWS = 256  # of Z that are made at once


@dataclass(frozen=True)
class Standardised:
    """Means over all cells of z', the targets, and x, the inputs."""

    mean: Float64[np.ndarray, " targets"]  # of the expression; z = (Y - mean) / deviation
    deviation: Float64[np.ndarray, " targets"]
    input_mean: Float64[np.ndarray, " inputs"]
    input_square: Float64[np.ndarray, " inputs"]
    target_mean: Float64[np.ndarray, " targets"]
    target_square: Float64[np.ndarray, " targets"]
    n_cells: int
    second: Float[np.ndarray, "inputs inputs"] | None  # E[x x^T]; None from sums without products
    cross: Float[np.ndarray, "targets inputs"] | None  # E[z' x^T]


def standardised(sums: Sums, perturbations: Perturbations, gain: float, dtype: DTypeLike = np.float64) -> Standardised:
    """The moments of inputs and targets; beside the sums it holds the two matrices that it gives.

    Args:
        sums: over the cells that `perturbations` is of, whatever its strengths.
        perturbations: what is perturbed, and how strongly.
        gain: what z is multiplied by as an input.
        dtype: of the matrices.
    """
    found = _Assembly(Groups(sums, perturbations))
    groups, n_cells, n_genes = found.groups, sums.n_cells, perturbations.n_genes
    input_mean = -found.strength.T @ sums.n / n_cells
    input_mean[:n_genes] += gain * found.target_total / n_cells
    input_square = found.strength.power(2).T @ sums.n / n_cells
    input_square[:n_genes] += gain**2 * found.target_square / n_cells
    second, cross = found.matrices(gain, np.dtype(dtype)) if sums.product is not None else (None, None)
    return Standardised(
        groups.offset + sums.shift, groups.deviation, input_mean, input_square, found.target_total / n_cells,
        found.target_square / n_cells, n_cells, second, cross,
    )  # fmt: skip


def bytes_needed(n_genes: int, dtype: DTypeLike = np.float64) -> int:
    """Memory for the sums of products and, the larger, for the moments made from them; nothing that grows slower."""
    return n_genes**2 * (8 + max(4, 2 * np.dtype(dtype).itemsize))


@dataclass(frozen=True, eq=False)
class _Assembly:
    """The terms of the module's text: sums over cells, not means."""

    groups: Groups

    @cached_property
    def target_total(self) -> Float64[np.ndarray, " targets"]:
        return self.groups.total.sum(axis=0)

    @cached_property
    def target_square(self) -> Float64[np.ndarray, " targets"]:
        own = 2 * self.target_total + (self.groups.sums.n_cells - self._n_own) * self._a
        return self.groups.sums.square / self.groups.deviation**2 - self._a * own

    @cached_property
    def strength(self) -> sparse.csr_matrix:
        """k, [labels, inputs]."""
        return self.groups.table(self.groups.perturbations.strength)

    def matrices(
        self, gain: float, dtype: np.dtype
    ) -> tuple[Float[np.ndarray, "inputs inputs"], Float[np.ndarray, "targets inputs"]]:
        """E[x x^T] and E[z' x^T]."""
        sums, perturbed = self.groups.sums, self.groups.perturbations.perturbed
        n_genes, n_inputs = self.groups.perturbations.n_genes, self.groups.perturbations.n_inputs
        second, cross = np.zeros((n_inputs, n_inputs), dtype), np.zeros((n_genes, n_inputs), dtype)
        for first in range(0, n_genes, ROWS):
            rows = slice(first, min(first + ROWS, n_genes))
            z = self._products(rows) / sums.n_cells
            second[rows, :n_genes], cross[rows, :n_genes] = gain**2 * z, gain * z
        k = self.strength[:, perturbed]
        u = k.T @ self.groups.total / sums.n_cells  # [perturbed, genes]
        cross[:, perturbed] -= u.T
        second[:n_genes, perturbed] -= gain * u.T
        second[perturbed, :n_genes] -= gain * u
        second[np.ix_(perturbed, perturbed)] += (k.T @ k.multiply(sums.n[:, None])).toarray() / sums.n_cells
        kernels.mirror_upper(second)  # symmetric to the last bit
        return second, cross

    def _products(self, rows: slice) -> Float64[np.ndarray, "rows genes"]:
        """Rows of Z."""
        product, a, w = self.groups.sums.product, self._a, self._w
        assert product is not None
        z = product[rows] / self.groups.deviation[rows, None] / self.groups.deviation
        z -= w[rows, None] * a
        z -= a[rows, None] * w
        z[:, self._measured] += self._e[:, rows].T
        inside = (self._measured >= rows.start) & (self._measured < rows.stop)
        z[self._measured[inside] - rows.start] += self._e[inside]
        return z

    @cached_property
    def _a(self) -> Float64[np.ndarray, " genes"]:
        return self.groups.offset / self.groups.deviation

    @cached_property
    def _w(self) -> Float64[np.ndarray, " genes"]:
        return self.target_total + (self.groups.sums.n_cells / 2 - self._n_own) * self._a

    @cached_property
    def _e(self) -> Float64[np.ndarray, "perturbed genes"]:
        """The transpose of E, its rows of measured perturbed genes only."""
        measured, own = self._measured, self.groups.own[:, self._measured]
        both = (own.T @ own.multiply(self.groups.sums.n[:, None])).toarray()
        e = (own.T @ self.groups.total) * self._a[measured, None]
        e[:, measured] -= both * self._a[measured, None] * self._a[measured] / 2
        return e

    @cached_property
    def _measured(self) -> Int64[np.ndarray, " perturbed"]:
        """Genes of the panel that some label perturbs, ascending."""
        perturbed = self.groups.perturbations.perturbed
        return perturbed[perturbed < self.groups.perturbations.n_genes]

    @cached_property
    def _n_own(self) -> Float64[np.ndarray, " genes"]:
        """Number of cells in which each gene is perturbed."""
        n_genes = self.groups.perturbations.n_genes
        return np.asarray(self.groups.own.T @ self.groups.sums.n, dtype=np.float64)[:n_genes]
