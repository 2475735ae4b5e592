"""How strong indirect effects are, and what scores without a model find: the last two tables of docs/simulator.md.

Run it from the repository (about five minutes on one core): python scripts/measure_indirect.py
"""

import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from measure_simulator import auprc_ratio, log_normalised, perturbed_groups, truth
from scipy.sparse.csgraph import shortest_path

from grndist.data.simulate import CONDITIONS, SimulationConfig, simulate
from grndist.data.simulate.dynamics import steady_state
from grndist.data.simulate.network import draw_network
from grndist.data.simulate.simulation import draw_panel
from grndist.evaluation.baselines import SCREEN_BASELINES, Screen, strata_scores
from grndist.genes import NON_TARGETING
from grndist.seeds import stream

CELLS_PER_LEVEL = 100  # whose mean is a gene's level under one knock-down
SEEDS = range(9)
SCREENS = {
    "weak": {},
    "strong": {"indirect_effects": "strong"},
    "weak, library effects 0.3": {"library_effects": 0.3},
}
MATCHED = {"genes": 300, "regulators": 50, "perturbed_share": 0.25, "cells": 4800, "control_share": 0.625}
STRATA = ("perturbed", "unperturbed", "all")


@dataclass(frozen=True)
class Effects:
    """Total effects of knocking down each regulator, |log level|, by what the pair is in the network."""

    direct: float  # median over pairs with an edge
    indirect: float  # ... over pairs with a path but no edge
    next_but_one: float  # ... over those whose shortest path has two edges
    unrelated: float  # ... over pairs without a path: sampling error
    false_per_true: float  # indirect pairs above the direct pairs' median per direct pair above it
    ceiling: float  # AUPRC ratio of the effects themselves, all pairs


def total_effects(config: SimulationConfig) -> Effects:
    size = np.abs(_log_levels(config))
    regulators = draw_panel(config).regulators
    edges = draw_network(config, regulators).tocoo()
    graph = np.zeros((config.genes, config.genes), dtype=bool)
    graph[regulators[edges.col], edges.row] = True
    distance = shortest_path(graph, unweighted=True)[regulators]
    direct, reached = distance == 1, np.isfinite(distance) & (distance > 1)
    strong = size > np.median(size[direct])
    pairs = distance > 0
    return Effects(
        direct=np.median(size[direct]),
        indirect=np.median(size[reached]),
        next_but_one=np.median(size[distance == 2]),
        unrelated=np.median(size[np.isinf(distance)]),
        false_per_true=(strong & reached).sum() / (strong & direct).sum(),
        ceiling=auprc_ratio(size[pairs], direct[pairs]),
    )


def _log_levels(config: SimulationConfig) -> Float[np.ndarray, "regulators genes"]:
    """Log mean level with each regulator knocked down minus that of ten times as many cells without."""
    regulators = draw_panel(config).regulators
    conditions = CONDITIONS[config.difficulty]
    knocked = np.append(np.repeat(np.arange(len(regulators)), CELLS_PER_LEVEL), np.full(10 * CELLS_PER_LEVEL, -1))
    rate = np.ones((config.genes, len(knocked)), dtype=np.float32)
    own = np.flatnonzero(knocked >= 0)
    rate[regulators[knocked[own]], own] = conditions.residual
    rng = stream(config.seed, "measure-indirect")
    level = steady_state(rate, draw_network(config, regulators), regulators, conditions.molecules, rng)
    means = np.log([level[:, knocked == number].mean(axis=1) + 0.02 for number in range(-1, len(regulators))])
    return means[1:] - means[0]


def screen_of(config: SimulationConfig) -> tuple[Screen, Bool[np.ndarray, "genes genes"]]:
    """The sums that the baselines need, and the true edges."""
    simulation = simulate(config)
    values = log_normalised(simulation.counts.toarray())
    columns, cells, controls = perturbed_groups(simulation)
    return Screen(
        control_mean=values[controls].mean(axis=0),
        deviation=values.std(axis=0),
        n_controls=simulation.perturbation.count(NON_TARGETING),
        perturbed=np.array(columns),
        group_means=np.array([values[own].mean(axis=0) for own in cells]),
        group_sizes=np.array([own.sum() for own in cells]),
        covariance=np.cov(values.T, bias=True),
    ), truth(simulation)


def measure_effects(indirect_effects: str, genes: int, regulators: int) -> dict[str, float]:
    """Means over the seeds."""
    settings = {"genes": genes, "regulators": regulators, "indirect_effects": indirect_effects}
    measured = [total_effects(SimulationConfig(**settings, seed=seed)) for seed in SEEDS]
    return {name: float(np.mean([getattr(one, name) for one in measured])) for name in Effects.__dataclass_fields__}


def measure_baselines(settings: dict) -> dict[str, list[float]]:
    """Mean AUPRC ratios of each baseline: perturbed, unperturbed and all regulators; then their sd over the seeds."""
    found: dict[str, list] = {name: [] for name in SCREEN_BASELINES}
    for seed in SEEDS:
        screen, edges = screen_of(SimulationConfig(**MATCHED, **settings, seed=seed))
        for name, score in SCREEN_BASELINES.items():
            strata = strata_scores(score(screen), edges, screen.is_perturbed)
            found[name].append([getattr(strata, stratum) for stratum in STRATA])
    return {name: [*np.mean(ratios, axis=0), *np.std(ratios, axis=0)] for name, ratios in found.items()}


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in cells)} |", flush=True)


def main() -> None:
    figures = {}
    names = list(Effects.__dataclass_fields__)
    print_row("indirect effects", "genes / regulators", *names)
    print_row(*["---"] * (2 + len(names)))
    for genes, regulators in ((100, 20), (300, 50), (1000, 120)):
        for strength in ("weak", "strong"):
            effects = measure_effects(strength, genes, regulators)
            print_row(strength, f"{genes} / {regulators}", *effects.values())
            figures |= {f"{strength}/{genes}/{regulators} {name}": value for name, value in effects.items()}
    print()
    print_row("data", "score", *STRATA, *(f"sd {stratum}" for stratum in STRATA))
    print_row(*["---"] * 8)
    for data, settings in SCREENS.items():
        for name, ratios in measure_baselines(settings).items():
            print_row(data, name, *map(float, ratios))
            figures |= {f"{data}: {name} {stratum}": value for stratum, value in zip(STRATA, ratios, strict=False)}
    print(json.dumps({"figures": {name: round(float(value), 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
