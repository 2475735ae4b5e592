"""The sums of one pass over the cells, which add up over parts of them.

Y is the expression, Q[c, g] = Y[c, g] - shift[g], and Q = 0 where g is perturbed in c: an "own" entry, of which only
the sums by label are kept. Strengths and gains come in later, so one pass serves any of them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from grndist.data.perturbations import Perturbations


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over cells, in float64."""

    shift: Float64[np.ndarray, " genes"]  # any; near the means it keeps the sums small
    n: Int64[np.ndarray, " labels"]  # number of cells
    total: Float64[np.ndarray, "labels genes"]  # of Q, over each label's cells
    square: Float64[np.ndarray, " genes"]  # of Q^2
    own_total: Float64[np.ndarray, "labels guides"]  # of Y - shift at own entries; 0 for inputs that are not measured
    own_square: Float64[np.ndarray, "labels guides"]
    product: Float64[np.ndarray, "genes genes"] | None  # Q^T Q, symmetric; None where it was not asked for

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.n.sum())

    def __add__(self, other: "Sums") -> "Sums":
        """Those of the cells of both.

        Raises:
            ValueError: they were not made with the same shift, or only one has products.
        """
        if not np.array_equal(self.shift, other.shift) or (self.product is None) != (other.product is None):
            raise ValueError("sums of different passes cannot be added; shift and kind must be the same")
        return Sums(
            self.shift,
            self.n + other.n,
            self.total + other.total,
            self.square + other.square,
            self.own_total + other.own_total,
            self.own_square + other.own_square,
            None if self.product is None or other.product is None else self.product + other.product,
        )


def nothing(shift: Float64[np.ndarray, " genes"], perturbations: Perturbations, products: bool) -> Sums:
    """The sums of no cells."""
    n_genes, guides = len(shift), perturbations.members.shape
    return Sums(
        shift,
        np.zeros(perturbations.n_labels, dtype=np.int64),
        np.zeros((perturbations.n_labels, n_genes)),
        np.zeros(n_genes),
        np.zeros(guides),
        np.zeros(guides),
        np.zeros((n_genes, n_genes)) if products else None,
    )
