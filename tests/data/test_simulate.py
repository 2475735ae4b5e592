import runpy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from grndist.config import ConfigError, validate
from grndist.data import simulate as simulator
from grndist.data.simulate import SimulationConfig, simulate
from grndist.genes import NON_TARGETING
from tests.data.simulated import (
    correlation_ratio,
    difference_of_means_ratio,
    groups,
    scaled,
    simulated,
    truth,
    zero_share,
)

REPOSITORY = Path(__file__).parents[2]
SMALL = SimulationConfig(cells=600, genes=60, regulators=12, seed=3)
SEEDS = range(10)
FEW_SEEDS = range(5)  # of the other difficulties


# --- the network ---


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


# --- the cells ---


def test_counts_are_sparse_integers_with_the_zeros_of_real_data():
    for seed in SEEDS:
        counts = simulated(seed).counts
        assert counts.format == "csr"
        assert counts.dtype == np.int32
        assert counts.data.min() > 0
        assert 0.6 < zero_share(simulated(seed)) < 0.9


def test_control_cells_have_their_share_and_perturbed_genes_theirs():
    labels = pd.Series(simulated().perturbation).value_counts()
    assert labels[NON_TARGETING] == 900
    perturbed = labels.drop(NON_TARGETING)
    assert len(perturbed) == 20 + 10
    assert perturbed.max() - perturbed.min() <= 1
    assert set(perturbed.index) <= set(simulated().genes)


def test_decoys_are_perturbed_but_regulate_nothing():
    simulation = simulated()
    columns, _, _ = groups(simulation)
    assert simulation.is_regulator[columns].sum() == 20
    assert (~simulation.is_regulator[columns]).sum() == 10


def test_the_knock_down_shows_in_the_counts():
    for seed in SEEDS:
        simulation = simulated(seed)
        columns, cells, controls = groups(simulation)
        counts = simulation.counts.toarray()
        left = [counts[own, g].mean() / counts[controls, g].mean() for g, own in zip(columns, cells, strict=True)]
        assert np.mean(np.array(left) < 0.6) > 0.95
        assert np.median(left) < 0.3


def test_the_residual_fraction_is_one_in_control_cells_and_varies_in_the_others():
    simulation = simulated()
    _, _, controls = groups(simulation)
    assert (simulation.residual[controls] == 1).all()
    knocked = simulation.residual[~controls]
    assert (knocked.min() > 0) & (knocked.max() <= 1)
    assert 0.1 < np.median(knocked) < 0.2
    assert knocked.std() > 0.02


def test_the_library_size_follows_capture():
    simulation = simulated()
    library = np.asarray(simulation.counts.sum(axis=1)).ravel()
    assert np.corrcoef(np.log(simulation.capture), np.log(np.maximum(library, 1)))[0, 1] > 0.7
    assert np.log(library).std() > 0.3


def test_a_knock_down_lowers_activated_targets_and_raises_repressed_ones():
    agree = []
    for seed in FEW_SEEDS:
        simulation = simulated(seed, "easy")
        values, column = scaled(simulation), {name: g for g, name in enumerate(simulation.genes)}
        labels = np.array(simulation.perturbation)
        for regulator, target, weight in simulation.network.itertuples(index=False):
            if (labels == regulator).any():
                here = values[:, column[target]]
                agree.append((here[labels == regulator].mean() < here[labels == NON_TARGETING].mean()) == (weight > 0))
    assert np.mean(agree) > 0.75


def test_counts_are_overdispersed_and_rare_ones_are_lost_more_often():
    conditions = simulator.CONDITIONS["realistic"]
    low, high = (
        simulator._count(np.full((400, 500), mean), conditions, np.random.default_rng(0)) for mean in (0.1, 20.0)
    )
    assert high.var() > 3 * high.mean()
    assert low.mean() / 0.1 == pytest.approx(1 - conditions.dropout / 1.1, abs=0.03)
    assert high.mean() / 20 == pytest.approx(1 - conditions.dropout / 21, abs=0.03)


def test_without_regulation_the_level_has_mean_one_and_the_noise_of_its_molecules():
    rate = np.ones((50, 400), dtype=np.float32)
    unregulated = simulator.sparse.csr_array((50, 1), dtype=np.float32)
    level = simulator._steady_state(rate, unregulated, np.array([0]), 50.0, np.random.default_rng(0))
    assert level.mean() == pytest.approx(1, abs=0.01)
    assert level.var() == pytest.approx(1 / 50 / (1 - simulator.STEP / 2), rel=0.05)  # Euler-Maruyama's own variance


def test_a_noise_free_level_is_the_fixed_point_of_the_equation():
    rate = np.ones((3, 1), dtype=np.float32)
    rate[0] = 0.1  # knocked down
    weights = simulator.sparse.csr_array(np.array([[0], [2], [-2]], dtype=np.float32))
    level = simulator._steady_state(rate, weights, np.array([0]), 1e12, np.random.default_rng(0)).ravel()
    shift = simulator.BOUND * np.tanh(2 * (0.01 / 1.01 - 0.5) / simulator.BOUND)
    assert level == pytest.approx([0.1, np.exp(shift), np.exp(-shift)], rel=0.02)


# --- difficulty ---


@pytest.mark.parametrize(
    ("genes", "regulators", "seeds"),
    [(100, 20, range(10)), (200, 40, range(5)), (500, 100, range(2)), (1000, 40, [8])],  # 8: the easiest of 30
)
def test_correlation_finds_some_of_the_network_but_not_much(genes: int, regulators: int, seeds: Iterable[int]):
    for seed in seeds:
        assert 1.5 < correlation_ratio(simulated(seed, "realistic", genes, regulators)) < 8


def test_difference_of_means_finds_the_targets_of_perturbed_regulators():
    ratios = [difference_of_means_ratio(simulated(seed)) for seed in SEEDS]
    assert min(ratios) > 3
    assert np.mean(ratios) > np.mean([correlation_ratio(simulated(seed)) for seed in SEEDS])


@pytest.mark.parametrize("measure", [correlation_ratio, difference_of_means_ratio])
def test_easy_is_easier_and_hard_is_harder(measure):
    easy, realistic, hard = (
        np.mean([measure(simulated(seed, difficulty)) for seed in FEW_SEEDS])
        for difficulty in ("easy", "realistic", "hard")
    )
    assert easy > 1.2 * realistic
    assert realistic > 1.2 * hard


def test_the_documented_figures_are_these_measures():
    measure = runpy.run_path(str(REPOSITORY / "scripts" / "measure_simulator.py"))["measure"](simulated())
    assert measure.correlation == pytest.approx(correlation_ratio(simulated()), rel=1e-6)
    assert measure.difference == pytest.approx(difference_of_means_ratio(simulated()), rel=1e-6)
    assert measure.zeros == pytest.approx(zero_share(simulated()))
    assert len(measure.left) == 30


def test_a_harder_data_set_has_more_zeros():
    zeros = [zero_share(simulated(0, difficulty)) for difficulty in ("easy", "realistic", "hard")]
    assert zeros[0] + 0.05 < zeros[1] < zeros[2] - 0.05


# --- the same seed ---


def test_a_block_of_cells_can_be_simulated_alone():
    config = SimulationConfig(genes=50, regulators=10, cells=1200)
    whole = simulate(config).counts
    genes = simulator._draw_genes(config)
    weights = simulator._draw_network(config, genes.regulators)
    cells = simulator._draw_cells(config, genes.perturbed)
    for block in (2, 0):
        rows = slice(block * simulator.CELLS_PER_BLOCK, (block + 1) * simulator.CELLS_PER_BLOCK)
        alone = simulator._block_counts(config, genes, weights, cells, block)
        assert (whole[rows] != alone).nnz == 0
    assert whole.shape[0] == 1200


def test_another_seed_gives_another_network_and_other_counts():
    one, other = simulate(SMALL), simulate(SMALL.model_copy(update={"seed": 4}))
    assert not one.network.equals(other.network)
    assert (one.counts != other.counts).nnz > 0


# --- the settings ---


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"regulators": 300}, "regulators=300 exceeds genes=200; lower regulators"),
        ({"regulators": 200}, "decoy_share=0.5 asks for 50 .* only 0 of the 200 genes are not regulators"),
        ({"cells": 100}, "cells=100 .* leaves 70 cells for 30 perturbed genes, but at least 150 are needed"),
        ({"control_share": 1}, "leaves 0 cells for 30 perturbed genes.*perturbed_share"),
        ({"difficulty": "brutal"}, "difficulty.*'easy', 'realistic' or 'hard'"),
        ({"seed": -1}, "seed.*greater than or equal to 0"),
        ({"control_share": 1.5}, "control_share.*less than or equal to 1"),
        ({"celss": 5}, "celss: unknown key; did you mean 'cells'"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_in_words(setting: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        validate(SimulationConfig, setting, "simulate")


def test_without_perturbation_every_cell_is_a_control():
    simulation = simulate(SimulationConfig(cells=50, genes=20, regulators=20, perturbed_share=0))
    assert set(simulation.perturbation) == {NON_TARGETING}


@settings(max_examples=25, deadline=None)
@given(
    genes=st.integers(5, 40),
    regulated=st.floats(0, 1),
    perturbed_share=st.floats(0, 1),
    control_share=st.floats(0, 0.5),
    difficulty=st.sampled_from(["easy", "realistic", "hard"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_small_simulation_is_consistent(*, genes, regulated, perturbed_share, control_share, difficulty, seed):
    config = SimulationConfig(
        cells=600,
        genes=genes,
        regulators=max(1, round(regulated * genes)),
        perturbed_share=perturbed_share,
        decoy_share=0,
        control_share=control_share,
        difficulty=difficulty,
        seed=seed,
    )
    simulation = simulate(config)
    edges = truth(simulation)
    assert simulation.counts.shape == (600, genes)
    assert not edges.diagonal().any()
    assert (edges.any(axis=1) == simulation.is_regulator).all()
    assert simulation.is_regulator.sum() == config.regulators
    labels = list(simulation.perturbation)
    assert labels.count(NON_TARGETING) == config.n_controls
    assert len(set(labels) - {NON_TARGETING}) == sum(config.n_perturbed)
    assert np.isfinite(simulation.network["weight"]).all()
