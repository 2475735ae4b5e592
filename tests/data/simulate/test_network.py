import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components, shortest_path

from grndist.data.simulate import SimulationConfig, simulate
from grndist.data.simulate.dynamics import steady_state
from grndist.data.simulate.network import draw_network
from grndist.data.simulate.simulation import draw_panel
from tests.data.simulated import simulated, truth

SEEDS = range(10)


def test_the_network_is_signed_and_has_neither_self_loops_nor_duplicates():
    network = simulated().network
    assert list(network.columns) == ["regulator", "target", "weight"]
    assert (network["regulator"] != network["target"]).all()
    assert not network.duplicated(["regulator", "target"]).any()
    assert 0.15 < (network["weight"] < 0).mean() < 0.45
    assert (network["weight"] != 0).all()
    assert network["weight"].abs().is_monotonic_decreasing


def test_exactly_the_regulators_regulate_and_each_of_them_does():
    simulation = simulated()
    regulators = {name for name, regulates in zip(simulation.genes, simulation.is_regulator, strict=True) if regulates}
    assert set(simulation.network["regulator"]) == regulators
    assert len(regulators) == 40


def test_strong_indirect_effects_are_a_cascade_of_strong_edges_with_as_many_edges():
    weak, strong = (
        simulate(SimulationConfig(cells=10, genes=400, regulators=80, perturbed_share=0, indirect_effects=kind))
        for kind in ("weak", "strong")
    )
    n_components, _ = connected_components(truth(strong), connection="strong")
    assert n_components == 400  # no cycle
    assert len(strong.network) == pytest.approx(len(weak.network), rel=0.15)
    weights = strong.network["weight"].abs()
    inside = strong.network["target"].isin(set(strong.network["regulator"]))
    assert weights[inside].median() == pytest.approx(2 * weights[~inside].median(), rel=0.1)
    assert set(strong.network["regulator"]) == set(np.array(strong.genes)[strong.is_regulator])


def test_a_knock_down_reaches_further_with_strong_indirect_effects():
    assert np.mean([indirect_share("strong", seed) for seed in range(3)]) > 2 * np.mean(
        [indirect_share("weak", seed) for seed in range(3)]
    )


def indirect_share(indirect_effects: str, seed: int) -> float:
    """Median |log level| shift of pairs with a path but no edge, relative to pairs with an edge."""
    config = SimulationConfig(genes=150, regulators=25, indirect_effects=indirect_effects, seed=seed)
    regulators = draw_panel(config).regulators
    weights = draw_network(config, regulators)
    knocked = np.repeat(np.arange(-1, len(regulators)), 60)
    rate = np.ones((config.genes, len(knocked)), dtype=np.float32)
    rate[regulators[knocked[60:]], np.arange(60, len(knocked))] = 0.15
    level = steady_state(rate, weights, regulators, 3.0, np.random.default_rng(0))
    log_level = np.log(level.reshape(config.genes, -1, 60).mean(axis=2).T + 0.02)
    shift = np.abs(log_level[1:] - log_level[0])
    graph = np.zeros((config.genes, config.genes), dtype=bool)
    graph[regulators] = weights.toarray().T != 0
    distance = shortest_path(graph, unweighted=True)[regulators]
    return np.median(shift[np.isfinite(distance) & (distance > 1)]) / np.median(shift[distance == 1])


def test_the_order_of_the_genes_does_not_betray_the_regulators():
    first = np.mean([np.flatnonzero(simulated(seed).is_regulator).mean() for seed in SEEDS])
    assert 85 < first < 115  # 99.5 expected, sd 2.8


def test_the_out_degree_has_a_heavy_tail_and_the_in_degree_has_not():
    measured = [degrees(seed) for seed in range(9)]  # the variance of a power law is its few largest values
    largest_out, dispersion, largest_in, exponent = np.median(measured, axis=0)
    assert largest_out > 15
    assert dispersion > 20  # a Poisson degree has 1
    assert largest_in < 6
    assert 2 < exponent < 3.5


def degrees(seed: int) -> tuple[float, float, float, float]:
    """Largest out-degree over the mean, variance over mean, largest in-degree over the mean, exponent of the tail."""
    config = SimulationConfig(cells=10, genes=4000, regulators=1000, perturbed_share=0, seed=seed)
    network = simulate(config).network
    out_degree = network["regulator"].value_counts().to_numpy()
    in_degree = network["target"].value_counts().to_numpy()
    top = np.sort(out_degree)[-100:]
    hill = 1 + 1 / np.log(top / top[0]).mean()  # Hill's estimator
    mean = out_degree.mean()
    return out_degree.max() / mean, out_degree.var() / mean, in_degree.max() / in_degree.mean(), hill


def test_regulators_regulate_each_other_in_cycles():
    with_cycle = 0
    for seed in SEEDS:
        simulation = simulated(seed)
        edges = truth(simulation)[np.ix_(simulation.is_regulator, simulation.is_regulator)]
        n_components, _ = connected_components(edges, connection="strong")
        with_cycle += n_components < len(edges)
    assert with_cycle >= 8
