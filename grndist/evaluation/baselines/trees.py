"""GENIE3 and GRNBoost2: each gene predicted from the regulators by an ensemble of trees, one task a gene.

Settings and importances are those of arboreto 0.1.6 (`arboreto.core`; Moerman et al. 2019), whose own distribution
does not run on today's Dask. A weight is how much of what the trees explain of a target is owed to a regulator:

- GENIE3 (Huynh-Thu et al. 2010): random forest of 1,000 trees, sqrt(regulators) tried at each split; the weights of a
  target sum to 1.
- GRNBoost2: gradient boosting of stumps of depth 3, rate 0.01, on 90 % of the cells and 10 % of the regulators at each
  split, until the mean out-of-bag improvement of 25 rounds is negative (5,000 at most); the weights of a target sum to
  the number of rounds, so that targets which are explained well weigh more.

The trees of a target depend on its name, the seed, the cells and the regulators, which are in alphabetical order; not
on the order of genes, on other targets, or on where it is done. Other releases of scikit-learn may grow others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from grndist.seeds import stream

Forest = Literal["genie3", "grnboost2"]
WINDOW = 25  # rounds of boosting whose out-of-bag improvement decides


@dataclass(frozen=True)
class Problem:
    """What all targets share."""

    method: Forest
    seed: int
    genes: tuple[str, ...]  # in alphabetical order
    values: Float32[np.ndarray, "cells genes"]
    regulators: Int64[np.ndarray, " regulators"]  # columns, ascending


def weights_of_target(problem: Problem, target: int) -> tuple[int, Float64[np.ndarray, " regulators"]]:
    """The target, and the weights of all regulators; 0 for itself, and where nothing varies that could be explained."""
    weights = np.zeros(len(problem.regulators))
    others = np.flatnonzero(problem.regulators != target)
    y = problem.values[:, target].astype(np.float64)
    if len(others) and y.min() < y.max():
        x = np.take(problem.values, problem.regulators[others], axis=1)
        state = int(stream(problem.seed, problem.method, problem.genes[target]).integers(2**32))
        weights[others] = _IMPORTANCES[problem.method](x, y, state)
    return target, weights


def forest_importances(
    x: Float32[np.ndarray, "cells regulators"], y: Float64[np.ndarray, " cells"], state: int
) -> Float64[np.ndarray, " regulators"]:
    """Of GENIE3, for one target."""
    forest = RandomForestRegressor(n_estimators=1000, max_features="sqrt", n_jobs=1, random_state=state)
    return forest.fit(x, y).feature_importances_


def boosted_importances(
    x: Float32[np.ndarray, "cells regulators"], y: Float64[np.ndarray, " cells"], state: int
) -> Float64[np.ndarray, " regulators"]:
    """Of GRNBoost2, for one target."""
    boosted = GradientBoostingRegressor(
        learning_rate=0.01, n_estimators=5000, max_features=0.1, subsample=0.9, random_state=state
    )
    boosted.fit(x, y, monitor=_no_longer_improves)
    return boosted.feature_importances_ * len(boosted.estimators_)


_IMPORTANCES = {"genie3": forest_importances, "grnboost2": boosted_importances}


def _no_longer_improves(round_: int, boosted: GradientBoostingRegressor, _: object) -> bool:
    """Whether the last WINDOW rounds, of which number `round_` is the last, did more harm than good."""
    return round_ >= WINDOW - 1 and bool(np.mean(boosted.oob_improvement_[round_ - WINDOW + 1 : round_ + 1]) < 0)
