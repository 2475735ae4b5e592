"""From CaTran-D's partial correlations and the difference of means to one signed weight per edge.

Perturbed regulators have two kinds of evidence, which are blended; for the others the first one must do. Both become
log odds of being an edge on one scale (`grndist.effects`); the weight is log(1 + odds), with the sign of regulation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from grndist.effects import blend, posterior_log_odds, transferred_odds


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
        associations: their partial correlations.
        effects: their differences of means, z.
        weight: of the associations in the blend.
    """
    rows = inputs.cpu().numpy()
    association, effect = _without_self(associations, rows), _without_self(effects, rows)
    offset, slope = transferred_odds(effect, association)
    blended = blend(effect, association, weight)
    log_odds = np.nan_to_num(posterior_log_odds(blended), nan=-np.inf)
    weights = -np.sign(np.nan_to_num(blended)) * np.logaddexp(0.0, log_odds)  # a knock-down lowers what it activates
    there = torch.from_numpy(weights).to(effects)
    return Scores({int(row): place for place, row in enumerate(rows)}, there, offset, slope)


def _without_self(values: Tensor, rows: np.ndarray) -> np.ndarray:
    """In float64, NaN where a regulator meets itself; one that was not measured never does."""
    found = values.cpu().numpy().astype(np.float64)
    measured = np.flatnonzero(rows < found.shape[1])
    found[measured, rows[measured]] = np.nan
    return found
