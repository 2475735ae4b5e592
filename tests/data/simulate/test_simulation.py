import numpy as np
import pandas as pd

from grndist.data.simulate import CELLS_PER_BLOCK, SimulationConfig, simulate, simulation
from grndist.data.simulate.network import draw_network
from grndist.genes import NON_TARGETING
from tests.data.simulated import groups, scaled, simulated, zero_share

SMALL = SimulationConfig(cells=600, genes=60, regulators=12, seed=3)
SEEDS = range(10)
FEW_SEEDS = range(5)  # of the other difficulties


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


def test_library_effects_move_all_cells_of_a_perturbed_gene_alike_and_nothing_else():
    plain = simulate(SMALL)
    moved = simulate(SMALL.model_copy(update={"library_effects": 0.5}))
    factor = pd.Series(np.log(moved.capture / plain.capture)).groupby(np.array(plain.perturbation))
    assert factor.std().max() < 1e-12
    assert factor.mean()[NON_TARGETING] == 0
    assert 0.25 < factor.mean().drop(NON_TARGETING).std() < 0.9  # 9 perturbed genes
    assert moved.network.equals(plain.network)
    assert moved.perturbation == plain.perturbation
    controls = np.array(plain.perturbation) == NON_TARGETING
    depth = [np.asarray(one.counts.sum(axis=1)).ravel()[~controls] for one in (plain, moved)]
    shift = np.log(moved.capture / plain.capture)[~controls]
    assert np.corrcoef(np.log(depth[1] + 1) - np.log(depth[0] + 1), shift)[0, 1] > 0.7


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


def test_a_block_of_cells_can_be_simulated_alone():
    config = SimulationConfig(genes=50, regulators=10, cells=1200)
    whole = simulate(config).counts
    genes = simulation.draw_panel(config)
    weights = draw_network(config, genes.regulators)
    cells = simulation.draw_cells(config, genes.perturbed)
    for block in (2, 0):
        rows = slice(block * CELLS_PER_BLOCK, (block + 1) * CELLS_PER_BLOCK)
        alone = simulation.block_counts(config, genes, weights, cells, block)
        assert (whole[rows] != alone).nnz == 0
    assert whole.shape[0] == 1200


def test_another_seed_gives_another_network_and_other_counts():
    one, other = simulate(SMALL), simulate(SMALL.model_copy(update={"seed": 4}))
    assert not one.network.equals(other.network)
    assert (one.counts != other.counts).nnz > 0
