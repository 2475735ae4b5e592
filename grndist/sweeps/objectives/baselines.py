"""What the objectives give without any training: by chance, by correlation and by the difference of means.

They stand beside a sweep's trials: a best trial that is worse than these is no find.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
from jaxtyping import Int64

from grndist.data.view import View
from grndist.evaluation.baselines import BaselineError, random_scores
from grndist.evaluation.baselines.evidence import EVIDENCE
from grndist.evaluation.interventional import mean_wasserstein, perturbed_genes, rank_sum_precision, score_edges
from grndist.evaluation.scores import RANDOM_DRAWS
from grndist.networks.edges import EdgeList, edge_list
from grndist.networks.stability import agreement_with_others
from grndist.networks.strongest import Block, strongest
from grndist.runs import RunConfig
from grndist.runs.train import cells_of
from grndist.seeds import stream
from grndist.sweeps.objectives.config import (
    MEASURES,
    AnyObjective,
    HeldOutConfig,
    RankSumConfig,
    ReferenceConfig,
    StabilityConfig,
)
from grndist.sweeps.objectives.held_out import HeldOut
from grndist.sweeps.objectives.measure import comparison_with
from grndist.sweeps.objectives.refusals import regulators_of

RANDOM, CORRELATION, MEAN_DIFFERENCE = "random", "absolute correlation", "mean difference"
LARGEST = 4096  # genes for which a matrix of genes x genes (128 MiB) is a small matter

logger = logging.getLogger(__name__)


def baseline(objectives: Sequence[AnyObjective], config: RunConfig, seed: int = 0) -> dict[str, dict[str, float]]:
    """Of every method its objectives, by name, of which those are left out that it has none of.

    - random: the mean of ten random rankings of the edges a network could have; of all objectives but reconstruction.
    - absolute correlation: over the cells that the run trains on, on the log scale; up to 4,096 genes.
    - mean difference: |difference between perturbed and control cells| in standard errors (z), of the same cells; other
      regulators have none and come last. Up to 4,096 genes, and where there are controls and perturbed cells.

    The last two are the same on every run, so they have no stability.

    Raises:
        UserError: an objective cannot be measured.
    """
    view, _ = cells_of(config)
    held_out = HeldOut()
    found = {RANDOM: _of_chance(objectives, config, view, held_out, seed)}
    if not any(isinstance(objective, ReferenceConfig | HeldOutConfig) for objective in objectives):
        return found
    if view.n_genes > LARGEST:
        logger.info("baselines: of %d genes, random edges alone; correlations are for up to %d", view.n_genes, LARGEST)
        return found
    for method, scores in _scores(view):
        found[method] = _of_scores(objectives, config, scores, held_out)
    return found


def _scores(view: View) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each method's scores [regulators, targets], more meaning more likely."""
    for name, method in ((CORRELATION, "correlation"), (MEAN_DIFFERENCE, "mean_difference_z")):
        with suppress(BaselineError):  # nothing to compare with
            found = EVIDENCE[method](view)
            yield name, pd.DataFrame(np.abs(found.weights), index=list(found.regulators), columns=list(found.targets))


def _of_scores(
    objectives: Sequence[AnyObjective], config: RunConfig, scores: pd.DataFrame, held_out: HeldOut
) -> dict[str, float]:
    found, panel = {}, list(scores.columns)
    for objective in objectives:
        if isinstance(objective, ReferenceConfig):
            matrix = scores.reindex(index=panel, fill_value=0.0)
            found[objective.name] = comparison_with(objective, set(panel)).scores(matrix)[MEASURES[objective.measure]]
        elif isinstance(objective, HeldOutConfig):
            view = held_out.cells(objective, config)
            allowed = regulators_of(config, view) & set(perturbed_genes(view))
            edges = _strongest(scores[scores.index.isin(allowed)], objective.k)
            if len(edges) == objective.k:
                found[objective.name] = _at_k(objective, score_edges(view, edges))
    return found


def _strongest(scores: pd.DataFrame, k: int) -> EdgeList:
    weights = scores.to_numpy(copy=True)
    weights[scores.index.to_numpy()[:, None] == scores.columns.to_numpy()] = 0
    edges = strongest([Block(slice(0, len(weights)), weights)], k)
    return edge_list(scores.index[edges.regulators], scores.columns[edges.targets], edges.weights, list(scores.columns))


def _at_k(objective: HeldOutConfig, table: pd.DataFrame) -> float:
    if isinstance(objective, RankSumConfig):
        return rank_sum_precision(table, objective.k, objective.alpha)
    return mean_wasserstein(table, objective.k)


def _of_chance(
    objectives: Sequence[AnyObjective], config: RunConfig, view: View, held_out: HeldOut, seed: int
) -> dict[str, float]:
    found = {}
    for objective in objectives:
        if isinstance(objective, ReferenceConfig):
            comparison = comparison_with(objective, set(view.panel.names))
            found[objective.name] = comparison.chance(seed)[MEASURES[objective.measure]]
        elif isinstance(objective, HeldOutConfig):
            cells = held_out.cells(objective, config)
            regulators = sorted(regulators_of(config, cells) & set(perturbed_genes(cells)))
            draws = [_drawn(regulators, cells.panel.names, objective.k, seed, draw) for draw in range(RANDOM_DRAWS)]
            found[objective.name] = _mean_at_k(objective, cells, draws)
        elif isinstance(objective, StabilityConfig):
            regulators = sorted(regulators_of(config, view))
            draws = [_drawn(regulators, view.panel.names, objective.k, seed, draw) for draw in range(RANDOM_DRAWS)]
            found[objective.name] = float(np.mean(agreement_with_others(draws, objective.k)))
    return found


def _mean_at_k(objective: HeldOutConfig, view: View, draws: list[EdgeList]) -> float:
    """The mean over several networks, in one pass over the cells."""
    pairs = ["regulator", "target"]
    every = pd.concat([draw.table for draw in draws]).drop_duplicates(pairs)
    tested = score_edges(view, EdgeList(every.reset_index(drop=True))).drop(columns="weight")
    return float(np.mean([_at_k(objective, draw.table.merge(tested, how="left", on=pairs)) for draw in draws]))


def _drawn(regulators: Sequence[str], targets: Sequence[str], k: int, seed: int, draw: int) -> EdgeList:
    """A random ranking's first k edges."""
    column = {name: at for at, name in enumerate(targets)}
    own = np.array([column.get(name, len(targets)) for name in regulators])
    row, at = _pairs(own, len(targets), k, stream(seed, "random-baseline", draw))
    names = np.array(targets, dtype=object)
    return edge_list(np.array(regulators, dtype=object)[row], names[at], random_scores(k, seed, draw) + 1, targets)


def _pairs(
    own: Int64[np.ndarray, " regulators"], n_targets: int, k: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """K different pairs (regulator, target), none of a regulator and its own column."""
    width = n_targets - (own < n_targets)  # targets of each regulator
    ends = np.cumsum(width)
    chosen = rng.choice(int(ends[-1]), k, replace=False)
    row = np.searchsorted(ends, chosen, side="right")
    at = chosen - (ends - width)[row]
    return row, at + (at >= own[row])
