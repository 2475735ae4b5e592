"""The network: who regulates whom, and how strongly. Knows nothing of cells."""

import numpy as np
import pandas as pd
from jaxtyping import Int64
from scipy import sparse

from grndist.data.simulate.config import CONDITIONS, SimulationConfig
from grndist.seeds import stream

DEGREE_EXPONENT = 2.5  # of the regulators' out-degree; biological networks lie between 2 and 3
REGULATORS_PER_TARGET = 2.0  # on average, beside the one target that every regulator is given
REPRESSION_SHARE = 0.3
STRENGTH_SPREAD = 0.3  # sd of log |weight|
CASCADE_STRENGTH = {"weak": 1.0, "strong": 2.0}  # |weight| among regulators relative to other genes


def draw_network(config: SimulationConfig, regulators: Int64[np.ndarray, " regulators"]) -> sparse.csr_array:
    """Draw signed weights [targets, regulators], float32; no self-loops, every regulator has a target.

    A target's regulators are drawn without replacement, with chances proportional to a Pareto-distributed
    attractiveness (Gumbel top-k), which gives the out-degrees the tail P(k) ~ k^-DEGREE_EXPONENT
    (Caldarelli et al. 2002). With weak indirect effects nothing orders the genes, so cycles arise; with strong ones
    only a gene further down the cascade can be a target, so there is none.
    """
    rng = stream(config.seed, "simulate", "network")
    log_attraction = rng.exponential(1 / (DEGREE_EXPONENT - 1), len(regulators))
    in_degree = rng.poisson(REGULATORS_PER_TARGET, config.genes)
    only = (regulators + rng.integers(1, config.genes, len(regulators))) % config.genes  # never itself
    place = _places(config, regulators)
    uphill = place[regulators] > place[only]
    only[uphill] = rng.choice(np.setdiff1d(np.arange(config.genes), regulators), uphill.sum())
    pairs = {(int(target), column) for column, target in enumerate(only)}
    for target, degree in enumerate(in_degree):
        keys = log_attraction + rng.gumbel(size=len(regulators))
        keys[(regulators == target) | (place[regulators] > place[target])] = -np.inf
        drawn = np.argsort(-keys)[: min(degree, np.isfinite(keys).sum())]
        pairs.update((target, int(column)) for column in drawn)
    targets, columns = np.array(sorted(pairs)).T
    sign = np.where(rng.random(len(targets)) < REPRESSION_SHARE, -1, 1)
    strength = CONDITIONS[config.difficulty].strength * np.exp(STRENGTH_SPREAD * rng.standard_normal(len(targets)))
    strength[np.isin(targets, regulators)] *= CASCADE_STRENGTH[config.indirect_effects]
    shape = (config.genes, len(regulators))
    return sparse.csr_array(((sign * strength).astype(np.float32), (targets, columns)), shape=shape)


def _places(config: SimulationConfig, regulators: Int64[np.ndarray, " regulators"]) -> Int64[np.ndarray, " genes"]:
    """Return each gene's place in the cascade, after which its targets lie: all 0 where there is no cascade."""
    if config.indirect_effects == "weak":
        return np.zeros(config.genes, dtype=np.int64)
    place = np.full(config.genes, len(regulators))
    place[regulators] = stream(config.seed, "simulate", "cascade").permutation(len(regulators))
    return place


def network_table(
    weights: sparse.csr_array, regulators: Int64[np.ndarray, " regulators"], names: tuple[str, ...]
) -> pd.DataFrame:
    """Return the edges, strongest first; ties in the order of target, then regulator."""
    edges = weights.tocoo()
    label = np.array(names, dtype=object)
    table = pd.DataFrame(
        {"regulator": label[regulators[edges.col]], "target": label[edges.row], "weight": edges.data.astype(float)}
    )
    return table.iloc[np.argsort(-table["weight"].abs(), kind="stable")].reset_index(drop=True)
