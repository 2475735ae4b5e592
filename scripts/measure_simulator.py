"""How hard the simulator's data are: prints the table of docs/simulator.md, then its numbers as one JSON line.

Run it from the repository (about four minutes on one core): python scripts/measure_simulator.py
"""

import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from grndist.data.simulate import Simulation, SimulationConfig, simulate
from grndist.evaluation.baselines import absolute_correlation
from grndist.evaluation.ranking import dazzle_average_precision, ratio_to_chance
from grndist.genes import NON_TARGETING

# difficulty, genes, regulators, cells, number of seeds (0, 1, ...)
ROWS = [
    ("realistic", 100, 20, 3000, 80),
    ("realistic", 100, 40, 3000, 20),
    ("realistic", 200, 40, 3000, 20),  # the default
    ("realistic", 500, 100, 3000, 10),
    ("realistic", 1000, 40, 3000, 30),
    ("realistic", 1000, 200, 3000, 10),
    ("realistic", 1000, 100, 10_000, 10),
    ("easy", 200, 40, 3000, 20),
    ("hard", 200, 40, 3000, 20),
]
HEADER = [
    "difficulty", "genes / regulators / cells", "seeds", "zeros", "correlation", "difference of means", "left (median)",
    "genes with left < 0.6",
]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One simulation."""

    zeros: float
    correlation: float  # AUPRC ratio of |Pearson|, all ordered pairs
    difference: float  # AUPRC ratio of |perturbed - control|, pairs of a perturbed regulator
    left: Float[np.ndarray, " perturbed"]  # of each perturbed gene's counts, in its own cells against controls


def measure(simulation: Simulation) -> Measured:
    counts = simulation.counts.toarray()
    values = log_normalised(counts)
    edges = truth(simulation)
    pairs = ~np.eye(len(edges), dtype=bool)
    columns, cells, controls = perturbed_groups(simulation)
    shift = np.abs([values[own].mean(axis=0) - values[controls].mean(axis=0) for own in cells]) / deviation(values)
    tested = pairs[columns] & simulation.is_regulator[columns, None]  # [perturbed, targets]
    return Measured(
        zeros=float((counts == 0).mean()),
        correlation=auprc_ratio(absolute_correlation([values])[pairs], edges[pairs]),
        difference=auprc_ratio(shift[tested], edges[columns][tested]),
        left=np.array(
            [counts[own, g].mean() / counts[controls, g].mean() for g, own in zip(columns, cells, strict=True)]
        ),
    )


def log_normalised(counts: np.ndarray) -> Float[np.ndarray, "cells genes"]:
    """log(1 + counts scaled to the median library size)."""
    library = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.log1p(counts / library * np.median(library))


def deviation(values: Float[np.ndarray, "cells genes"]) -> Float[np.ndarray, " genes"]:
    return np.maximum(values.std(axis=0), 1e-9)  # a gene that is never seen shifts by 0 / 1e-9


def truth(simulation: Simulation) -> Bool[np.ndarray, "regulators targets"]:
    column = {name: number for number, name in enumerate(simulation.genes)}
    edges = np.zeros((len(column), len(column)), dtype=bool)
    edges[simulation.network["regulator"].map(column), simulation.network["target"].map(column)] = True
    return edges


def perturbed_groups(simulation: Simulation) -> tuple[list[int], list[np.ndarray], np.ndarray]:
    """Column and cells of every perturbed gene, and the control cells."""
    labels = np.array(simulation.perturbation)
    columns = [column for column, name in enumerate(simulation.genes) if (labels == name).any()]
    return columns, [labels == simulation.genes[column] for column in columns], labels == NON_TARGETING


def auprc_ratio(score: np.ndarray, is_true: np.ndarray) -> float:
    return ratio_to_chance(dazzle_average_precision(score, is_true), is_true)


def measure_row(difficulty: str, genes: int, regulators: int, cells: int, seeds: int) -> dict[str, float]:
    """Mean, least and most over the seeds; `left` over all perturbed genes of all of them."""
    settings = {"difficulty": difficulty, "genes": genes, "regulators": regulators, "cells": cells}
    measured = [measure(simulate(SimulationConfig(**settings, seed=seed))) for seed in range(seeds)]
    left = np.concatenate([one.left for one in measured])
    figures = {
        "seeds": seeds,
        "zeros": np.mean([one.zeros for one in measured]),
        "left": np.median(left),
        "left_below_0.6": np.mean(left < 0.6),
    }
    for name in ("correlation", "difference"):
        ratios = [getattr(one, name) for one in measured]
        figures |= {name: np.mean(ratios), f"{name}_least": min(ratios), f"{name}_most": max(ratios)}
    return {name: round(float(value), 4) for name, value in figures.items()}


def table_row(difficulty: str, genes: int, regulators: int, cells: int, figures: dict[str, float]) -> list[str]:
    ratios = [
        f"{figures[name]:.1f} [{figures[f'{name}_least']:.1f}, {figures[f'{name}_most']:.1f}]"
        for name in ("correlation", "difference")
    ]
    below = f"{100 * figures['left_below_0.6']:.1f} %"
    size = f"{genes:,} / {regulators:,} / {cells:,}"
    return [
        difficulty,
        size,
        f"{figures['seeds']:.0f}",
        f"{figures['zeros']:.2f}",
        *ratios,
        f"{figures['left']:.2f}",
        below,
    ]


def main() -> None:
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}", flush=True)
    all_figures = {}
    for *settings, seeds in ROWS:
        figures = measure_row(*settings, seeds)
        print(f"| {' | '.join(table_row(*settings, figures))} |", flush=True)
        all_figures |= {f"{'/'.join(map(str, settings))} {name}": value for name, value in figures.items()}
    print(json.dumps({"figures": all_figures}))


if __name__ == "__main__":
    main()
