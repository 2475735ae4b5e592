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
from grndist.data.moments.groups import Groups, blocks
from grndist.data.moments.sums import Sums
from grndist.data.perturbations import Perturbations


@dataclass(frozen=True)
class Standardised:
    """Second moments over all cells of z', the targets, and x, the inputs."""

    mean: Float64[np.ndarray, " targets"]  # of the expression; z = (Y - mean) / deviation
    deviation: Float64[np.ndarray, " targets"]
    input_square: Float64[np.ndarray, " inputs"]
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
    input_square = found.strength.power(2).T @ sums.n / n_cells
    input_square[:n_genes] += gain**2 * found.target_square / n_cells
    second, cross = found.matrices(gain, np.dtype(dtype)) if sums.product is not None else (None, None)
    return Standardised(
        groups.offset + sums.shift,
        groups.deviation,
        input_square,
        found.target_square / n_cells,
        n_cells,
        second,
        cross,
    )


def bytes_needed(n_genes: int, n_inputs: int, n_labels: int, dtype: DTypeLike = np.float64) -> int:
    """Memory for sums with products and what comes with them: blocks of cells first, and then the moments.

    Args:
        n_genes: of the panel.
        n_inputs: genes, and perturbed genes that were not measured.
        n_labels: number of labels.
        dtype: of the matrices.
    """
    sums = 8 * n_genes * (n_genes + n_labels)
    return sums + max(4 * n_genes**2, np.dtype(dtype).itemsize * n_inputs * (n_inputs + n_genes))


@dataclass(frozen=True, eq=False)
class _Assembly:
    """The terms of the module's text: sums over cells, not means."""

    groups: Groups

    @cached_property
    def target_square(self) -> Float64[np.ndarray, " targets"]:
        own = 2 * self.groups.total + (self.groups.sums.n_cells - self._n_own) * self._a
        return self.groups.sums.square / self.groups.deviation**2 - self._a * own

    @cached_property
    def strength(self) -> sparse.csr_matrix:
        """k, [labels, inputs]."""
        return self.groups.table(self.groups.perturbations.strength)

    def matrices(
        self, gain: float, dtype: np.dtype
    ) -> tuple[Float[np.ndarray, "inputs inputs"], Float[np.ndarray, "targets inputs"]]:
        """E[x x^T] and E[z' x^T]."""
        sums, n_genes = self.groups.sums, self.groups.perturbations.n_genes
        perturbed, measured = self.groups.perturbations.perturbed, self._measured
        second = np.zeros((self.groups.perturbations.n_inputs,) * 2, dtype)
        cross = np.zeros((n_genes, len(second)), dtype)
        k = self.strength[:, perturbed].T.tocsr()  # [perturbed, labels]
        for rows in blocks(n_genes):
            z = self._products(rows) / sums.n_cells
            u = self.groups.totals(k, rows).T / sums.n_cells  # [rows, perturbed]
            second[rows, :n_genes], cross[rows, :n_genes] = gain**2 * z, gain * z
            second[rows, perturbed] -= gain * u
            cross[rows, perturbed] -= u
            inside = _inside(measured, rows)
            second[measured[inside], :n_genes] -= gain * self.groups.totals(k[inside]) / sums.n_cells
        both = (k @ k.T.multiply(sums.n[:, None]).tocsr()).tocoo()
        second[perturbed[both.row], perturbed[both.col]] += both.data / sums.n_cells
        kernels.mirror_upper(second)  # symmetric to the last bit; nothing was put below for inputs without a gene
        return second, cross

    def _products(self, rows: slice) -> Float64[np.ndarray, "rows genes"]:
        """Rows of Z."""
        product, a, w, measured = self.groups.sums.product, self._a, self._w, self._measured
        assert product is not None
        z = product[rows] / self.groups.deviation[rows, None]
        z /= self.groups.deviation
        z -= w[rows, None] * a
        z -= a[rows, None] * w
        z[:, measured] += self._e(measured, rows).T
        inside = measured[_inside(measured, rows)]
        z[inside - rows.start] += self._e(inside, slice(0, len(a)))
        return z

    def _e(self, perturbed: Int64[np.ndarray, " perturbed"], genes: slice) -> Float64[np.ndarray, "perturbed genes"]:
        """The transpose of E, of some perturbed genes and some of the others."""
        own = self.groups.own[:, perturbed].T.tocsr()
        e = self.groups.totals(own, genes)
        both = (own @ self.groups.own_cells[:, genes]).tocoo()
        e[both.row, both.col] -= both.data * self._a[genes][both.col] / 2
        e *= self._a[perturbed, None]
        return e

    @cached_property
    def _a(self) -> Float64[np.ndarray, " genes"]:
        return self.groups.offset / self.groups.deviation

    @cached_property
    def _w(self) -> Float64[np.ndarray, " genes"]:
        return self.groups.total + (self.groups.sums.n_cells / 2 - self._n_own) * self._a

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


def _inside(genes: Int64[np.ndarray, " genes"], rows: slice) -> slice:
    """Where genes, ascending, lie among `rows`."""
    return slice(*np.searchsorted(genes, [rows.start, rows.stop]).tolist())
