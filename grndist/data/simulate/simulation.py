"""One simulated data set: the panel, the cells and, block by block, their counts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int64
from scipy import sparse

from grndist.data.simulate.config import CONDITIONS, SimulationConfig
from grndist.data.simulate.dynamics import count, steady_state
from grndist.data.simulate.network import draw_network, network_table
from grndist.genes import CONTROL, NON_TARGETING
from grndist.progress import track
from grndist.seeds import stream

CELLS_PER_BLOCK = 512  # part of the result's definition: each block has its own streams

BASAL_SPREAD = 1.0  # sd of log basal expression over genes
CAPTURE_SPREAD = 0.4  # sd of log capture efficiency over cells
RESIDUAL_SPREAD = 0.25  # sd of log residual expression, over guides and again over cells


@dataclass(frozen=True)
class Simulation:
    """Counts and the truth behind them; a perturbed cell has the name of its perturbed gene as label."""

    config: SimulationConfig
    counts: sparse.csr_array  # [cells, genes] int32
    genes: tuple[str, ...]
    is_regulator: Bool[np.ndarray, " genes"]
    basal: Float[np.ndarray, " genes"]  # mean count at basal level and average capture
    perturbation: tuple[str, ...]  # of each cell
    capture: Float[np.ndarray, " cells"]  # library-size factor; without library effects 1 on average
    residual: Float[np.ndarray, " cells"]  # share of the perturbed gene's production that is left; 1 in controls
    network: pd.DataFrame  # regulator, target, weight (> 0 activates), strongest first


@dataclass(frozen=True)
class Panel:
    """The panel: who regulates and is perturbed, and each gene's properties."""

    regulators: Int64[np.ndarray, " regulators"]  # columns, ascending
    perturbed: Int64[np.ndarray, " perturbed"]  # columns: regulators and decoys
    basal: Float[np.ndarray, " genes"]
    loading: Float32[np.ndarray, "genes d"]


@dataclass(frozen=True)
class Cells:
    """Each cell's perturbed column (or CONTROL) and nuisance."""

    perturbed: Int64[np.ndarray, " cells"]
    residual: Float[np.ndarray, " cells"]
    capture: Float[np.ndarray, " cells"]
    state: Float32[np.ndarray, "cells d"]


def simulate(config: SimulationConfig) -> Simulation:
    """Simulate one data set; a pure function of `config`.

    Time grows as cells x (genes + edges). Memory is 8 bytes per non-zero count, twice that while the blocks are
    joined, and about 60 bytes per gene and cell of ONE block; docs/simulator.md has figures.
    """
    genes = draw_panel(config)
    weights = draw_network(config, genes.regulators)
    cells = draw_cells(config, genes.perturbed)
    names = numbered("gene", config.genes)
    blocks = range(-(-config.cells // CELLS_PER_BLOCK))
    counts = [block_counts(config, genes, weights, cells, b) for b in track(blocks, "simulating", len(blocks))]
    return Simulation(
        config=config,
        counts=sparse.vstack(counts, format="csr"),
        genes=names,
        is_regulator=np.isin(np.arange(config.genes), genes.regulators),
        basal=genes.basal,
        perturbation=tuple(NON_TARGETING if gene == CONTROL else names[gene] for gene in cells.perturbed),
        capture=cells.capture,
        residual=cells.residual,
        network=network_table(weights, genes.regulators, names),
    )


def draw_panel(config: SimulationConfig) -> Panel:
    """Draw roles and properties; guides are designed against expressed genes, so these lie above the median."""
    conditions = CONDITIONS[config.difficulty]
    order = stream(config.seed, "simulate", "roles").permutation(config.genes)
    regulators, others = np.sort(order[: config.regulators]), order[config.regulators :]
    n_regulators, n_decoys = config.n_perturbed
    perturbed = np.concatenate([order[:n_regulators], others[:n_decoys]])
    log_basal = BASAL_SPREAD * stream(config.seed, "simulate", "basal").standard_normal(config.genes)
    log_basal[perturbed] = np.abs(log_basal[perturbed])
    loading = stream(config.seed, "simulate", "loading").standard_normal((config.genes, conditions.state_factors))
    return Panel(
        regulators,
        np.sort(perturbed),
        conditions.counts_per_gene * np.exp(log_basal) / np.exp(log_basal).mean(),
        (conditions.state_loading * loading).astype(np.float32),
    )


def draw_cells(config: SimulationConfig, perturbed: Int64[np.ndarray, " perturbed"]) -> Cells:
    """Deal the perturbed genes evenly over the cells that are not controls, in random order."""
    conditions = CONDITIONS[config.difficulty]
    rng = stream(config.seed, "simulate", "cells")
    dealt = np.resize(perturbed, config.cells - config.n_controls)
    gene = rng.permutation(np.concatenate([np.full(config.n_controls, CONTROL), dealt]))
    guide = rng.standard_normal(config.genes)[gene]
    log_residual = np.log(conditions.residual) + RESIDUAL_SPREAD * (guide + rng.standard_normal(config.cells))
    return Cells(
        gene,
        np.where(gene == CONTROL, 1.0, np.exp(np.minimum(log_residual, 0.0))),
        rng.lognormal(-(CAPTURE_SPREAD**2) / 2, CAPTURE_SPREAD, config.cells) * _library_factors(config)[gene],
        rng.standard_normal((config.cells, conditions.state_factors), dtype=np.float32),
    )


def _library_factors(config: SimulationConfig) -> Float[np.ndarray, " _"]:
    """Return what a knock-down of each gene multiplies its cells' library size by, and at index CONTROL a 1."""
    change = stream(config.seed, "simulate", "library").standard_normal(config.genes)
    return np.exp(config.library_effects * np.append(change, 0.0))


def block_counts(
    config: SimulationConfig, genes: Panel, weights: sparse.csr_array, cells: Cells, block: int
) -> sparse.csr_array:
    """Simulate the cells of one block, from streams that only this block draws."""
    here = slice(block * CELLS_PER_BLOCK, (block + 1) * CELLS_PER_BLOCK)
    gene = cells.perturbed[here]
    # einsum, not BLAS, whose last bits depend on the number of threads
    rate = np.exp(np.einsum("gd,cd->gc", genes.loading, cells.state[here]))
    knocked = np.flatnonzero(gene != CONTROL)
    rate[gene[knocked], knocked] *= cells.residual[here][knocked]
    conditions = CONDITIONS[config.difficulty]
    rng = stream(config.seed, "simulate", "noise", block)
    level = steady_state(rate, weights, genes.regulators, conditions.molecules, rng)
    mean = level.T * genes.basal * cells.capture[here, None]
    return sparse.csr_array(count(mean, conditions, stream(config.seed, "simulate", "counts", block)))


def numbered(word: str, count: int) -> tuple[str, ...]:
    """Return names of equal length: gene001, gene002, ..."""
    return tuple(f"{word}{number:0{len(str(count))}d}" for number in range(1, count + 1))
