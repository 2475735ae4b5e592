"""What follows from the sums over each label's cells, without products: standardisation, effects, observed strength.

z = (Y - mean) / deviation; mean over control cells (all cells where there are none), population deviation over all
cells (1 where it is 0). z' is z with 0 at own entries, those of a gene in cells in which it is perturbed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy import sparse

from grndist.data.moments.sums import Sums
from grndist.data.normalise import ROUNDING
from grndist.data.perturbations import Perturbations

ROWS = 128  # that are made at once
LEAST_STRENGTH = 0.1  # a label says that something was done; noise in few cells does not undo it
LEAST_MEAN = 1e-8  # of a control mean that can be divided by


@dataclass(frozen=True, eq=False)
class Groups:
    """Sums and perturbations of the same cells, and what both say of each gene; holds nothing of labels x genes."""

    sums: Sums
    perturbations: Perturbations

    @cached_property
    def n_controls(self) -> int:
        """Number of control cells."""
        return int(self.sums.n[self.perturbations.is_control].sum())

    @cached_property
    def offset(self) -> Float64[np.ndarray, " genes"]:
        """Mean over control cells, or all cells where there are none, minus the shift."""
        if self.n_controls == 0:
            return self._average
        return self.sums.total[self.perturbations.is_control].sum(axis=0) / self.n_controls

    @cached_property
    def deviation(self) -> Float64[np.ndarray, " genes"]:
        """Over all cells, own entries too; 1 for a gene that is the same everywhere."""
        square = (self.sums.square + self._of_own(self.sums.own_square)) / self.sums.n_cells
        variance = square - self._average**2
        varies = variance > ROUNDING * (self._average + self.sums.shift) ** 2
        return np.sqrt(np.where(varies, variance, 1))

    def totals(self, weights: sparse.csr_matrix, genes: slice = slice(None)) -> Float64[np.ndarray, "rows genes"]:
        """Sums over cells of a weight of the cell's label times z', for some genes.

        Args:
            weights: [rows, labels], a row for each such sum.
            genes: of the panel.
        """
        offset = self.offset[genes]
        found = weights @ self.sums.total[:, genes]
        n = weights @ self.sums.n
        for rows in blocks(len(found)):
            found[rows] -= np.outer(n[rows], offset)
        own = (weights @ self.own_cells[:, genes]).tocoo()
        found[own.row, own.col] += own.data * offset[own.col]
        found /= self.deviation[genes]
        return found

    @cached_property
    def total(self) -> Float64[np.ndarray, " genes"]:
        """Sum of z' over all cells."""
        every_label = sparse.csr_matrix(np.ones((1, self.perturbations.n_labels)))
        return self.totals(every_label)[0]

    @cached_property
    def own(self) -> sparse.csr_matrix:
        """1 where a label perturbs an input, [labels, inputs]."""
        return self.table(np.ones(self.perturbations.members.shape))

    def table(self, values: Float[np.ndarray, "labels guides"]) -> sparse.csr_matrix:
        """Values of labels and guides as [labels, inputs]."""
        members = self.perturbations.members
        label, guide = np.nonzero(members >= 0)
        shape = (self.perturbations.n_labels, self.perturbations.n_inputs)
        return sparse.csr_matrix((values[label, guide], (label, members[label, guide])), shape=shape)

    @cached_property
    def own_cells(self) -> sparse.csr_matrix:
        """Number of cells of a label that perturbs a gene, [labels, genes]."""
        return self.own.multiply(self.sums.n[:, None]).tocsr()[:, : self.perturbations.n_genes]

    @cached_property
    def _average(self) -> Float64[np.ndarray, " genes"]:
        """Mean over all cells, own entries too, minus the shift."""
        return (self.sums.total.sum(axis=0) + self._of_own(self.sums.own_total)) / self.sums.n_cells

    def _of_own(self, values: Float64[np.ndarray, "labels guides"]) -> Float64[np.ndarray, " genes"]:
        """Sums of own entries by gene."""
        return np.asarray(self.table(values).sum(axis=0)).ravel()[: self.perturbations.n_genes]


@dataclass(frozen=True)
class Effects:
    """Difference of means of every input that is the only perturbed gene of some cells; its own entry is 0."""

    inputs: Int64[np.ndarray, " regulators"]  # ascending
    z: Float64[np.ndarray, "regulators targets"]  # mean z / sqrt(1 / n + 1 / controls): units of its standard error
    n: Int64[np.ndarray, " regulators"]  # number of cells
    n_controls: int
    deviation: Float64[np.ndarray, " targets"]  # of z

    @property
    def log(self) -> Float64[np.ndarray, "regulators targets"]:
        """Difference of means in the units of the expression."""
        return self.z * np.sqrt(1 / self.n + 1 / max(self.n_controls, 1))[:, None] * self.deviation


def effects(sums: Sums, perturbations: Perturbations) -> Effects:
    """What each knock-down does, from the cells in which nothing else is perturbed; none without control cells."""
    groups = Groups(sums, perturbations)
    single = np.where((sums.n > 0) & (groups.n_controls > 0), perturbations.single, -1)
    inputs, row = np.unique(single[single >= 0], return_inverse=True)
    label = np.flatnonzero(single >= 0)
    pick = sparse.csr_matrix((np.ones(len(label)), (row, label)), shape=(len(inputs), perturbations.n_labels))
    n = np.asarray(pick @ sums.n).astype(np.int64)
    z = groups.totals(pick)
    z /= (n * np.sqrt(1 / n + 1 / max(groups.n_controls, 1)))[:, None]
    return Effects(inputs, z, n, groups.n_controls, groups.deviation)


def observed_strength(sums: Sums, perturbations: Perturbations) -> Float64[np.ndarray, "labels guides"]:
    """1 - mean of the perturbed gene in the label's cells / its mean in control cells, within [LEAST_STRENGTH, 1].

    Means are of the expression as the pass saw it. 1 where that says nothing: the gene is not measured or not
    expressed in controls, there are no controls or the label has no cells. 0 where there is no guide.
    """
    groups, members = Groups(sums, perturbations), perturbations.members
    measured = (members >= 0) & (members < perturbations.n_genes)
    gene = np.where(measured, members, 0)
    own = sums.own_total / np.maximum(sums.n, 1)[:, None] + sums.shift[gene]
    control = (groups.offset + sums.shift)[gene]
    known = measured & (control > LEAST_MEAN) & (sums.n > 0)[:, None] & (groups.n_controls > 0)
    fall = 1 - np.divide(own, control, out=np.zeros_like(own), where=known)
    return np.where(known, np.clip(fall, LEAST_STRENGTH, 1), 1.0) * (members >= 0)


def blocks(n: int) -> Iterator[slice]:
    """Rows in parts, so that what is made for each is small."""
    return (slice(first, min(first + ROWS, n)) for first in range(0, n, ROWS))
