"""Simulations that several tests share, and how well simple scores find their networks."""

from functools import cache

import numpy as np
from sklearn.metrics import average_precision_score

from grndist.data.simulate import Simulation, SimulationConfig, simulate
from grndist.genes import NON_TARGETING


@cache
def simulated(seed: int = 0, difficulty: str = "realistic", genes: int = 200, regulators: int = 40) -> Simulation:
    return simulate(SimulationConfig(seed=seed, difficulty=difficulty, genes=genes, regulators=regulators))


def truth(simulation: Simulation) -> np.ndarray:
    """Whether each edge is real, [regulators, targets]."""
    column = {name: number for number, name in enumerate(simulation.genes)}
    edges = np.zeros((len(column), len(column)), dtype=bool)
    edges[simulation.network["regulator"].map(column), simulation.network["target"].map(column)] = True
    return edges


def scaled(simulation: Simulation) -> np.ndarray:
    """Library-normalised log1p values, each gene with mean 0 and sd 1."""
    counts = simulation.counts.toarray().astype(float)
    library = np.maximum(counts.sum(1, keepdims=True), 1)
    log = np.log1p(counts / library * np.median(library))
    return (log - log.mean(0)) / np.maximum(log.std(0), 1e-9)


def auprc_ratio(score: np.ndarray, is_true: np.ndarray) -> float:
    return float(average_precision_score(is_true, score) / is_true.mean())


def correlation_ratio(simulation: Simulation) -> float:
    values = scaled(simulation)
    pairs = ~np.eye(len(simulation.genes), dtype=bool)
    return auprc_ratio(np.abs(values.T @ values)[pairs], truth(simulation)[pairs])


def groups(simulation: Simulation) -> tuple[list[int], list[np.ndarray], np.ndarray]:
    """Column and cells of every perturbed gene, and the control cells."""
    labels = np.array(simulation.perturbation)
    columns = [column for column, name in enumerate(simulation.genes) if (labels == name).any()]
    return columns, [labels == simulation.genes[column] for column in columns], labels == NON_TARGETING


def difference_of_means_ratio(simulation: Simulation) -> float:
    """AUPRC ratio of |perturbed - control|, over the pairs whose regulator is a perturbed regulator."""
    values, edges = scaled(simulation), truth(simulation)
    columns, cells, controls = groups(simulation)
    scores, real = [], []
    for column, own in zip(columns, cells, strict=True):
        if simulation.is_regulator[column]:
            others = np.arange(len(simulation.genes)) != column
            scores.append(np.abs(values[own].mean(0) - values[controls].mean(0))[others])
            real.append(edges[column, others])
    return auprc_ratio(np.concatenate(scores), np.concatenate(real))


def zero_share(simulation: Simulation) -> float:
    return 1 - simulation.counts.nnz / np.prod(simulation.counts.shape)
