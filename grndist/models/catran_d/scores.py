"""From CaTran-D's partial correlations and the difference of means to one signed weight per edge.

Perturbed regulators have two kinds of evidence, which are blended; for the others the first one must do. Both become
log odds of being an edge on one scale (`grndist.effects`); the weight is log(1 + odds), with the sign of regulation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from grndist.effects import Signed, edge_odds


@dataclass(frozen=True)
class Scores:
    """Weights of the edges of perturbed regulators, and how a partial correlation becomes one for the others."""

    perturbed: dict[int, int]  # row of `weights` for an input
    weights: Float[Tensor, "perturbed targets"]
    offset: float  # log odds = offset + slope |partial correlation|
    slope: float

    def of(
        self, rows: Int64[Tensor, " regulators"], associations: Float[Tensor, "regulators targets"]
    ) -> Float[Tensor, "regulators targets"]:
        """Weights of some regulators, whose partial correlations are given; 0 for a gene and itself."""
        log_odds = self.offset + self.slope * associations.abs()
        found = associations.sign() * torch.nn.functional.softplus(log_odds)
        for place, row in enumerate(rows.tolist()):
            if row in self.perturbed:
                found[place] = self.weights[self.perturbed[row]]
        return found


def scores(
    inputs: Int64[Tensor, " perturbed"],
    associations: Float[Tensor, "perturbed targets"],
    effects: Float[Tensor, "perturbed targets"],
    weight: float,
) -> Scores:
    """What turns partial correlations into weights.

    Args:
        inputs: of the perturbed regulators.
        associations: their partial correlations; their own entries are lost.
        effects: their differences of means, z.
        weight: of the associations in the blend.
    """
    rows = inputs.cpu().numpy()
    found = edge_odds(_without_self(effects.clone(), rows), _without_self(associations, rows), weight)
    there = torch.from_numpy(_signed(found.blended, found.log_odds)).to(effects)
    return Scores({int(row): place for place, row in enumerate(rows)}, there, found.offset, found.slope)


def _signed(blended: Signed, log_odds: Signed) -> Signed:
    """Return log(1 + odds) with the sign of regulation, 0 for no candidates, in the memory of the two."""
    unknown = np.isnan(blended)
    np.copyto(log_odds, -np.inf, where=unknown)
    weights = np.logaddexp(0, log_odds, out=log_odds)
    weights *= np.sign(blended, out=blended)
    np.copyto(weights, 0, where=unknown)
    return np.negative(weights, out=weights)  # a knock-down lowers what it activates


def _without_self(values: Tensor, rows: np.ndarray) -> np.ndarray:
    """The same values, NaN where a regulator meets itself; one that was not measured never does."""
    found = values.cpu().numpy()
    measured = np.flatnonzero(rows < found.shape[1])
    found[measured, rows[measured]] = np.nan
    return found
