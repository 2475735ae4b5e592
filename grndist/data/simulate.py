"""Perturb-seq counts from a known network; `simulation_file` writes them.

A signed, directed, scale-free network regulates the production of every gene; each cell follows a chemical
Langevin equation to its steady state, perturbed cells with one gene's production cut to a residual fraction;
its levels are then counted through a lossy assay. Equations, settings and measured difficulty: docs/simulator.md.

    dy_g = (P_g - y_g) dt + sqrt((P_g + y_g) / molecules) dB_g      y_g: level relative to basal, t in mRNA lifetimes
    P_g  = residual_g exp(BOUND tanh(sum_r w_rg (y_r^2 / (1 + y_r^2) - 1/2) / BOUND) + sum_k loading_gk state_k)
    count_g ~ Poisson(Gamma(mean = capture * basal_g * y_g)), lost with a probability falling with its mean

Cells are simulated in blocks of fixed size, each from random streams of its own, so memory for the dynamics is
bounded and any block can be computed alone. It knows nothing of files, stores, models or scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int32, Int64
from pydantic import Field, model_validator
from scipy import sparse

from grndist.config import Config, ConfigError
from grndist.genes import CONTROL, NON_TARGETING
from grndist.progress import track
from grndist.seeds import stream

CELLS_PER_BLOCK = 512  # part of the result's definition: each block has its own streams
CELLS_PER_PERTURBATION = 5  # fewer would say nothing about a perturbed gene

DEGREE_EXPONENT = 2.5  # of the regulators' out-degree; biological networks lie between 2 and 3
REGULATORS_PER_TARGET = 2.0  # on average, beside the one target that every regulator is given
REPRESSION_SHARE = 0.3
STRENGTH_SPREAD = 0.3  # sd of log |weight|
BOUND = 2.5  # regulation changes log production by less than this
HILL_COEFFICIENT = 2
STEP, STEPS = 0.2, 40  # of Euler-Maruyama, in mRNA lifetimes: 8 lifetimes reach the steady state
BASAL_SPREAD = 1.0  # sd of log basal expression over genes
CAPTURE_SPREAD = 0.4  # sd of log capture efficiency over cells
RESIDUAL_SPREAD = 0.25  # sd of log residual expression, over guides and again over cells


@dataclass(frozen=True)
class Conditions:
    """What a difficulty means."""

    strength: float  # median |weight|: change of log production from regulator absent to saturating
    molecules: float  # effective system size; intrinsic noise has a squared CV of about 1 / molecules
    state_factors: int  # hidden cell states that move many genes at once
    state_loading: float  # sd over genes of a state's effect on log production
    counts_per_gene: float  # mean UMI count per gene and cell at basal level
    dispersion: float  # theta of the negative binomial: variance = mean + mean^2 / theta
    dropout: float  # probability that a count is lost as its mean goes to zero
    residual: float  # median share of production that CRISPRi leaves


CONDITIONS = {
    "easy": Conditions(1.75, 3.0, 1, 0.1, 1.0, 10.0, 0.1, 0.1),
    "realistic": Conditions(1.75, 3.0, 3, 0.25, 0.5, 4.0, 0.3, 0.15),
    "hard": Conditions(1.25, 4.0, 4, 0.35, 0.25, 2.0, 0.5, 0.25),
}


class SimulationConfig(Config):
    """What to simulate."""

    cells: int = Field(3000, ge=10, le=10_000_000, description="cells, perturbed and control together")
    genes: int = Field(200, ge=5, le=100_000, description="genes of the panel")
    regulators: int = Field(40, ge=1, description="genes that regulate others, at most all of them")
    perturbed_share: float = Field(0.5, ge=0, le=1, description="share of the regulators that are knocked down")
    decoy_share: float = Field(
        0.5, ge=0, le=10, description="knocked-down genes that regulate nothing, per knocked-down regulator"
    )
    control_share: float = Field(
        0.3, ge=0, le=1, description="share of control cells; without knocked-down genes every cell is a control"
    )
    difficulty: Literal["easy", "realistic", "hard"] = Field(
        "realistic", description="strength of regulation, noise, hidden cell states, depth and dropout"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed and settings give the same data")

    @property
    def n_perturbed(self) -> tuple[int, int]:
        """How many regulators, and how many genes that regulate nothing, are knocked down."""
        perturbed = round(self.perturbed_share * self.regulators)
        return perturbed, round(self.decoy_share * perturbed)

    @property
    def n_controls(self) -> int:
        """How many cells are controls."""
        return round(self.control_share * self.cells) if sum(self.n_perturbed) else self.cells

    @model_validator(mode="after")
    def _fits_together(self) -> "SimulationConfig":
        problem = next(_misfits(self), None)
        if problem is not None:
            raise ConfigError(f"simulation: {problem}")  # no ValueError: pydantic would wrap the message
        return self


def _misfits(config: SimulationConfig) -> Iterator[str]:
    """What is wrong between settings that are each within their bounds."""
    perturbed, decoys = config.n_perturbed
    if config.regulators > config.genes:
        yield f"regulators={config.regulators} exceeds genes={config.genes}; lower regulators or raise genes"
    if decoys > config.genes - config.regulators:
        yield (
            f"decoy_share={config.decoy_share:g} asks for {decoys} perturbed genes that regulate nothing, but only "
            f"{config.genes - config.regulators} of the {config.genes} genes are not regulators; lower decoy_share "
            "or regulators, or raise genes"
        )
    needed, left = CELLS_PER_PERTURBATION * (perturbed + decoys), config.cells - config.n_controls
    if left < needed:
        yield (
            f"cells={config.cells} with control_share={config.control_share:g} leaves {left} cells for "
            f"{perturbed + decoys} perturbed genes, but at least {needed} are needed ({CELLS_PER_PERTURBATION} each); "
            "raise cells, or lower control_share or perturbed_share (0 simulates control cells only)"
        )


@dataclass(frozen=True)
class Simulation:
    """Counts and the truth behind them; a perturbed cell has the name of its perturbed gene as label."""

    config: SimulationConfig
    counts: sparse.csr_array  # [cells, genes] int32
    genes: tuple[str, ...]
    is_regulator: Bool[np.ndarray, " genes"]
    basal: Float[np.ndarray, " genes"]  # mean count at basal level and average capture
    perturbation: tuple[str, ...]  # of each cell
    capture: Float[np.ndarray, " cells"]  # library-size factor, 1 on average
    residual: Float[np.ndarray, " cells"]  # share of the perturbed gene's production that is left; 1 in controls
    network: pd.DataFrame  # regulator, target, weight (> 0 activates), strongest first


@dataclass(frozen=True)
class _Genes:
    """The panel: who regulates and is perturbed, and each gene's properties."""

    regulators: Int64[np.ndarray, " regulators"]  # columns, ascending
    perturbed: Int64[np.ndarray, " perturbed"]  # columns: regulators and decoys
    basal: Float[np.ndarray, " genes"]
    loading: Float32[np.ndarray, "genes d"]


@dataclass(frozen=True)
class _Cells:
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
    genes = _draw_genes(config)
    weights = _draw_network(config, genes.regulators)
    cells = _draw_cells(config, genes.perturbed)
    names = numbered("gene", config.genes)
    blocks = range(-(-config.cells // CELLS_PER_BLOCK))
    counts = [_block_counts(config, genes, weights, cells, b) for b in track(blocks, "simulating", len(blocks))]
    return Simulation(
        config=config,
        counts=sparse.vstack(counts, format="csr"),
        genes=names,
        is_regulator=np.isin(np.arange(config.genes), genes.regulators),
        basal=genes.basal,
        perturbation=tuple(NON_TARGETING if gene == CONTROL else names[gene] for gene in cells.perturbed),
        capture=cells.capture,
        residual=cells.residual,
        network=_network_table(weights, genes.regulators, names),
    )


def _draw_genes(config: SimulationConfig) -> _Genes:
    """Draw roles and properties; guides are designed against expressed genes, so these lie above the median."""
    conditions = CONDITIONS[config.difficulty]
    order = stream(config.seed, "simulate", "roles").permutation(config.genes)
    regulators, others = np.sort(order[: config.regulators]), order[config.regulators :]
    n_regulators, n_decoys = config.n_perturbed
    perturbed = np.concatenate([order[:n_regulators], others[:n_decoys]])
    log_basal = BASAL_SPREAD * stream(config.seed, "simulate", "basal").standard_normal(config.genes)
    log_basal[perturbed] = np.abs(log_basal[perturbed])
    loading = stream(config.seed, "simulate", "loading").standard_normal((config.genes, conditions.state_factors))
    return _Genes(
        regulators,
        np.sort(perturbed),
        conditions.counts_per_gene * np.exp(log_basal) / np.exp(log_basal).mean(),
        (conditions.state_loading * loading).astype(np.float32),
    )


def _draw_network(config: SimulationConfig, regulators: Int64[np.ndarray, " regulators"]) -> sparse.csr_array:
    """Draw signed weights [targets, regulators], float32; no self-loops, every regulator has a target.

    A target's regulators are drawn without replacement, with chances proportional to a Pareto-distributed
    attractiveness (Gumbel top-k), which gives the out-degrees the tail P(k) ~ k^-DEGREE_EXPONENT
    (Caldarelli et al. 2002). Nothing orders the genes, so cycles arise.
    """
    rng = stream(config.seed, "simulate", "network")
    log_attraction = rng.exponential(1 / (DEGREE_EXPONENT - 1), len(regulators))
    in_degree = rng.poisson(REGULATORS_PER_TARGET, config.genes)
    only = (regulators + rng.integers(1, config.genes, len(regulators))) % config.genes  # never itself
    pairs = {(int(target), column) for column, target in enumerate(only)}
    for target, degree in enumerate(in_degree):
        keys = log_attraction + rng.gumbel(size=len(regulators))
        keys[regulators == target] = -np.inf
        drawn = np.argsort(-keys)[: min(degree, np.isfinite(keys).sum())]
        pairs.update((target, int(column)) for column in drawn)
    targets, columns = np.array(sorted(pairs)).T
    sign = np.where(rng.random(len(targets)) < REPRESSION_SHARE, -1, 1)
    strength = CONDITIONS[config.difficulty].strength * np.exp(STRENGTH_SPREAD * rng.standard_normal(len(targets)))
    shape = (config.genes, len(regulators))
    return sparse.csr_array(((sign * strength).astype(np.float32), (targets, columns)), shape=shape)


def _draw_cells(config: SimulationConfig, perturbed: Int64[np.ndarray, " perturbed"]) -> _Cells:
    """Deal the perturbed genes evenly over the cells that are not controls, in random order."""
    conditions = CONDITIONS[config.difficulty]
    rng = stream(config.seed, "simulate", "cells")
    dealt = np.resize(perturbed, config.cells - config.n_controls)
    gene = rng.permutation(np.concatenate([np.full(config.n_controls, CONTROL), dealt]))
    guide = rng.standard_normal(config.genes)[gene]
    log_residual = np.log(conditions.residual) + RESIDUAL_SPREAD * (guide + rng.standard_normal(config.cells))
    return _Cells(
        gene,
        np.where(gene == CONTROL, 1.0, np.exp(np.minimum(log_residual, 0.0))),
        rng.lognormal(-(CAPTURE_SPREAD**2) / 2, CAPTURE_SPREAD, config.cells),
        rng.standard_normal((config.cells, conditions.state_factors), dtype=np.float32),
    )


def _block_counts(
    config: SimulationConfig, genes: _Genes, weights: sparse.csr_array, cells: _Cells, block: int
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
    level = _steady_state(rate, weights, genes.regulators, conditions.molecules, rng)
    mean = level.T * genes.basal * cells.capture[here, None]
    return sparse.csr_array(_count(mean, conditions, stream(config.seed, "simulate", "counts", block)))


def _steady_state(
    rate: Float32[np.ndarray, "genes cells"],
    weights: sparse.csr_array,
    regulators: Int64[np.ndarray, " regulators"],
    molecules: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "genes cells"]:
    """Integrate the chemical Langevin equation (Gillespie 2000) from the basal level by Euler-Maruyama steps."""
    level = np.ones_like(rate)
    for _ in range(STEPS):
        power = level[regulators] ** HILL_COEFFICIENT
        regulation = weights @ (power / (1 + power) - np.float32(0.5))
        production = rate * np.exp(BOUND * np.tanh(regulation / BOUND))
        noise = np.sqrt(STEP / molecules * (production + level)) * rng.standard_normal(rate.shape, dtype=np.float32)
        level = np.maximum(level + STEP * (production - level) + noise, 0)
    return level


def _count(
    mean: Float[np.ndarray, "cells genes"], conditions: Conditions, rng: np.random.Generator
) -> Int32[np.ndarray, "cells genes"]:
    """Draw negative-binomial counts (a gamma-Poisson mixture), some of them lost."""
    seen = rng.poisson(mean * rng.standard_gamma(conditions.dispersion, mean.shape) / conditions.dispersion)
    kept = rng.random(mean.shape) >= conditions.dropout / (1 + mean)
    return np.where(kept, seen, 0).astype(np.int32)


def _network_table(
    weights: sparse.csr_array, regulators: Int64[np.ndarray, " regulators"], names: tuple[str, ...]
) -> pd.DataFrame:
    """Return the edges, strongest first; ties in the order of target, then regulator."""
    edges = weights.tocoo()
    label = np.array(names, dtype=object)
    table = pd.DataFrame(
        {"regulator": label[regulators[edges.col]], "target": label[edges.row], "weight": edges.data.astype(float)}
    )
    return table.iloc[np.argsort(-table["weight"].abs(), kind="stable")].reset_index(drop=True)


def numbered(word: str, count: int) -> tuple[str, ...]:
    """Return names of equal length: gene001, gene002, ..."""
    return tuple(f"{word}{number:0{len(str(count))}d}" for number in range(1, count + 1))
