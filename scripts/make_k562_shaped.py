"""A made-up data set in the shape and the words of K562, day 6 (Replogle et al. 2022), as CausalBench reads it.

    python scripts/make_k562_shaped.py k562.h5ad

writes k562.h5ad (counts by rows, obs and var as in the published file), k562.xlsx (the sheets of table S2) and
k562.edges.tsv (the true edges). By default 160,000 cells x 8,500 genes, 622 measured genes perturbed in more than 100
cells each, other perturbations in fewer or of genes that are not measured.

The network is `grndist simulate`'s, and the mean of every perturbation is that of its dynamics without noise. Cells are
not integrated one by one, which would take an hour: each gets its perturbation's mean, hidden states, and noise of
every regulator that its targets follow to first order; then counts as in the simulator. Of the summary table the cells
and knock-downs are measured, the numbers of differentially expressed genes are drawn: above 50 for perturbations of
more than 100 cells and below for others. Memory is a block of cells and the means of all labels.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.simulate import SimulationConfig
from grndist.data.simulate.config import CONDITIONS
from grndist.data.simulate.dynamics import count, steady_state
from grndist.data.simulate.network import draw_network, network_table
from grndist.data.simulate.simulation import Panel, draw_panel
from grndist.genes import NON_TARGETING
from grndist.progress import track
from grndist.seeds import stream

BLOCK = 1024  # cells made at a time, and labels whose mean is
CHUNK = 2**18  # values of a chunk of the file
REGULATORS = 0.15  # share of the genes
TRUE = 2 / 3  # share of the perturbed genes that regulate
UNMEASURED = 0.25  # share of the small perturbations
LEAST, MOST = 130, 100  # cells of a large perturbation, and of a small one
SMALL = (5, 36)  # cells of a small one: from, below
RESIDUAL = 0.1  # median share of a perturbed gene's production that is left
REGULATOR_SPREAD = 0.5  # sd of the log of a regulator's level over cells of one label
CAPTURE_SPREAD = 0.4  # sd of log library size
CONDITION = CONDITIONS["realistic"]
SHEETS = ("TabA_K562_day8_summary_stat", "TabB_K562_day6_summary_stat", "TabC_RPE1_summary_statistic")


@dataclass(frozen=True)
class Labels:
    """Every label of the file: controls first, large perturbations, small ones, small ones of genes not measured."""

    gene: np.ndarray  # column of its gene; -1: none
    symbol: np.ndarray
    ensembl: np.ndarray
    cells: np.ndarray
    n_large: int


def main() -> None:
    """Write the file, its summary table and its true edges."""
    given = arguments()
    config = SimulationConfig(
        cells=given.cells, genes=given.genes, regulators=max(round(REGULATORS * given.genes), 2), perturbed_share=0,
        decoy_share=0, seed=given.seed,
    )  # fmt: skip
    panel = draw_panel(config)
    perturbed = drawn_genes(panel, given)
    labels = dealt(perturbed, given)
    panel = expressed(panel, perturbed, given.seed)
    weights = draw_network(config, panel.regulators)
    log_level = np.log(np.maximum(means(panel, weights, labels), 1e-3))  # [labels, genes]
    depth = given.umi / (panel.basal @ np.exp(log_level[0]))
    panel = replace(panel, basal=panel.basal * depth)
    label = stream(given.seed, "k562", "order").permutation(np.repeat(np.arange(len(labels.cells)), labels.cells))
    sums = write(given, panel, weights, labels, label, log_level)
    write_summary(given.out.with_suffix(".xlsx"), labels, sums, given.seed)
    edges = network_table(weights, panel.regulators, tuple(ensembl(np.arange(given.genes))))
    edges.to_csv(given.out.with_suffix(".edges.tsv"), sep="\t", index=False)
    large = int((labels.cells[1:] > MOST).sum())
    print(
        f"{given.out}: {given.cells:,} cells x {given.genes:,} genes, {large} genes perturbed in more than {MOST} cells"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="an h5ad")
    parser.add_argument("--cells", type=int, default=160_000)
    parser.add_argument("--genes", type=int, default=8_500)
    parser.add_argument("--controls", type=int, default=10_691, help="control cells")
    parser.add_argument("--large", type=int, default=622, help="measured genes perturbed in more than 100 cells")
    parser.add_argument("--small", type=int, default=1_435, help="perturbations of fewer cells")
    parser.add_argument("--umi", type=float, default=10_000, help="mean of a control cell")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    measured = given.large + given.small - round(UNMEASURED * given.small)
    if measured > given.genes:
        parser.error(f"--genes {given.genes}: {measured} measured genes are to be perturbed")
    if given.cells < given.controls + LEAST * given.large + SMALL[1] * given.small:
        parser.error(f"--cells {given.cells}: too few for so many perturbations; lower --large, --small or --controls")
    return given


def drawn_genes(panel: Panel, given: argparse.Namespace) -> np.ndarray:
    """Columns of the perturbed genes, the large ones first: two of three regulate, as far as there are regulators."""
    rng = stream(given.seed, "k562", "perturbed")
    regulators = rng.permutation(panel.regulators)
    others = rng.permutation(np.setdiff1d(np.arange(given.genes), panel.regulators))
    large = min(round(TRUE * given.large), len(regulators))
    first = np.concatenate([regulators[:large], others[: given.large - large]])
    rest = rng.permutation(np.concatenate([regulators[large:], others[given.large - large :]]))
    return np.concatenate([first, rest[: given.small - round(UNMEASURED * given.small)]])


def dealt(perturbed: np.ndarray, given: argparse.Namespace) -> Labels:
    """The labels and how many cells each has, in all exactly as many as were asked for."""
    rng = stream(given.seed, "k562", "cells")
    outside = round(UNMEASURED * given.small)
    gene = np.concatenate([[-1], perturbed, np.full(outside, -1)])
    number = np.concatenate([[-1], perturbed, given.genes + np.arange(outside)])
    small = rng.integers(*SMALL, given.small)
    left = given.cells - given.controls - small.sum() - LEAST * given.large
    large = LEAST + rng.multinomial(left, rng.dirichlet(np.full(given.large, 2.0)))
    cells = np.concatenate([[given.controls], large, small])
    names = np.array([NON_TARGETING, *symbols(number[1:])], dtype=object)
    ids = np.array([NON_TARGETING, *ensembl(number[1:])], dtype=object)
    return Labels(gene, names, ids, cells, given.large)


def symbols(numbers: np.ndarray) -> list[str]:
    """Gene symbols."""
    return [f"GENE{number}" for number in numbers]


def ensembl(numbers: np.ndarray) -> list[str]:
    """Ensembl ids."""
    return [f"ENSG{number:011d}" for number in numbers]


def expressed(panel: Panel, perturbed: np.ndarray, seed: int) -> Panel:
    """With the perturbed genes above the median, as guides are designed against expressed genes."""
    basal = panel.basal.copy()
    middle = np.median(basal)
    basal[perturbed] = middle * np.maximum(basal[perturbed] / middle, middle / basal[perturbed])
    return replace(panel, basal=basal)


def means(panel: Panel, weights: sparse.csr_array, labels: Labels) -> np.ndarray:
    """The steady state of every label without noise [labels, genes], float32."""
    found = np.empty((len(labels.gene), len(panel.basal)), dtype=np.float32)
    rng = np.random.default_rng(0)  # times 0
    starts = range(0, len(labels.gene), BLOCK // 4)
    for start in track(starts, "means", len(starts)):
        gene = labels.gene[start : start + BLOCK // 4]
        rate = np.ones((len(panel.basal), len(gene)), dtype=np.float32)
        knocked = np.flatnonzero(gene >= 0)
        rate[gene[knocked], knocked] = RESIDUAL
        found[start : start + len(gene)] = steady_state(rate, weights, panel.regulators, np.inf, rng).T
    return found


@dataclass(frozen=True)
class Sums:
    """Over the cells of the file."""

    own: np.ndarray  # [labels] of each label's own gene
    control: np.ndarray  # [genes] over control cells
    total: np.ndarray  # [genes]
    square: np.ndarray  # [genes]


def write(
    given: argparse.Namespace, panel: Panel, weights: sparse.csr_array, labels: Labels, label: np.ndarray,
    log_level: np.ndarray,
) -> Sums:  # fmt: skip
    """Write the h5ad block by block."""
    n_cells, n_genes = given.cells, given.genes
    sums = Sums(np.zeros(len(labels.gene)), np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes))
    umi, ends = np.empty(n_cells, dtype=np.float32), [np.zeros(1, dtype=np.int64)]
    follow = sparse.csr_array((0.5 * weights).T)  # [regulators, genes]: d log level / d log regulator at level 1
    with h5py.File(given.out, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, n_genes]})
        options = {"shape": (0,), "maxshape": (None,), "chunks": (CHUNK,), "compression": "lzf"}
        data = group.create_dataset("data", dtype=np.float32, **options)
        indices = group.create_dataset("indices", dtype=np.int32, **options)
        for start in track(range(0, n_cells, BLOCK), "cells", -(-n_cells // BLOCK)):
            own = label[start : start + BLOCK]
            counts = sparse.csr_array(block(given.seed, start, panel, follow, log_level[own]))
            add(sums, counts, own, labels)
            umi[start : start + len(own)] = counts.sum(axis=1)
            before = len(data)
            for dataset, values in ((data, counts.data), (indices, counts.indices)):
                dataset.resize((before + counts.nnz,))
                dataset[before:] = values
            ends.append(before + counts.indptr[1:].astype(np.int64))
        group.create_dataset("indptr", data=np.concatenate(ends))
        anndata.io.write_elem(file, "obs", table_of_cells(given.seed, labels, label, umi))
        anndata.io.write_elem(file, "var", table_of_genes(n_cells, sums))
    return sums


def block(
    seed: int, start: int, panel: Panel, follow: sparse.csr_array, log_level: np.ndarray
) -> np.ndarray:  # [cells, genes]
    """Counts of some cells, from streams of this block alone."""
    rng = stream(seed, "k562", "block", start)
    n_cells = len(log_level)
    noise = REGULATOR_SPREAD * rng.standard_normal((n_cells, len(panel.regulators)), dtype=np.float32)
    state = rng.standard_normal((n_cells, panel.loading.shape[1]), dtype=np.float32)
    log_level = log_level + state @ panel.loading.T + noise @ follow
    log_level[:, panel.regulators] += noise
    capture = rng.lognormal(-(CAPTURE_SPREAD**2) / 2, CAPTURE_SPREAD, n_cells)
    return count(np.exp(log_level) * panel.basal * capture[:, None], CONDITION, rng)


def add(sums: Sums, counts: sparse.csr_array, own: np.ndarray, labels: Labels) -> None:
    """Add a block to the sums."""
    columns, values = counts.indices, counts.data.astype(np.float64)
    sums.total[:] += np.bincount(columns, values, len(sums.total))
    sums.square[:] += np.bincount(columns, values**2, len(sums.total))
    of_cell = np.repeat(own, np.diff(counts.indptr))
    is_control = of_cell == 0
    sums.control[:] += np.bincount(columns[is_control], values[is_control], len(sums.total))
    is_own = labels.gene[of_cell] == columns
    sums.own[:] += np.bincount(of_cell[is_own], values[is_own], len(sums.own))


def table_of_cells(seed: int, labels: Labels, label: np.ndarray, umi: np.ndarray) -> pd.DataFrame:
    """Obs, with the published columns."""
    rng, size = stream(seed, "k562", "obs"), len(label)
    batch = rng.integers(1, 49, size)
    names = pd.Categorical.from_codes(label, categories=list(labels.symbol))
    ids = pd.Categorical.from_codes(label, categories=list(labels.ensembl))
    transcript = pd.Categorical.from_codes(label, categories=[NON_TARGETING, *(f"P1P2-{n}" for n in labels.symbol[1:])])
    guides = pd.Categorical.from_codes(label, categories=[f"{n}_+_A|{n}_+_B" for n in labels.symbol])
    whole = pd.Categorical.from_codes(label, categories=genetic_perturbations(labels))
    bases = np.array(list("ACGT"))[rng.integers(0, 4, (size, 16))]
    barcodes = [f"{''.join(word)}-{lane}-{at}" for at, (word, lane) in enumerate(zip(bases, batch, strict=True))]
    scale = umi / umi[label == 0].mean()
    return pd.DataFrame(
        {
            "gem_group": batch, "gene": names, "gene_id": ids, "transcript": transcript, "gene_transcript": whole,
            "sgID_AB": guides, "mitopercent": rng.beta(5, 60, size), "UMI_count": umi,
            "z_gemgroup_UMI": (umi - umi.mean()) / umi.std(), "core_scale_factor": scale,
            "core_adjusted_UMI_count": umi / scale,
        },
        index=pd.Index(barcodes, name="cell_barcode"),
    )  # fmt: skip


def table_of_genes(n_cells: int, sums: Sums) -> pd.DataFrame:
    """Var, with published columns."""
    numbers = np.arange(len(sums.total))
    mean = sums.total / n_cells
    std = np.sqrt(np.maximum(sums.square / n_cells - mean**2, 0))
    kept = np.maximum(mean, 1 / n_cells)
    return pd.DataFrame(
        {
            "gene_name": symbols(numbers), "in_matrix": True, "mean": mean, "std": std, "cv": std / kept,
            "fano": std**2 / kept,
        },
        index=pd.Index(ensembl(numbers), name="gene_id"),
    )  # fmt: skip


def genetic_perturbations(labels: Labels) -> list[str]:
    """Names as in the summary table, NUMBER_SYMBOL_TRANSCRIPT_ENSEMBL."""
    pairs = enumerate(zip(labels.symbol, labels.ensembl, strict=True))
    return [f"{at}_{symbol}_P1P2_{gene}" for at, (symbol, gene) in pairs]


def write_summary(path: Path, labels: Labels, sums: Sums, seed: int) -> None:
    """Write the summary table of day 6; the other sheets have its columns and one row."""
    rng = stream(seed, "k562", "summary")
    cells, gene = labels.cells[1:], labels.gene[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        control = sums.control[gene] / labels.cells[0]
        knockdown = np.where(gene >= 0, sums.own[1:] / cells / control - 1, np.nan)
    large = cells > MOST
    table = pd.DataFrame(
        {
            "genetic perturbation": genetic_perturbations(labels)[1:],
            "number of cells (unfiltered)": cells + rng.poisson(0.1 * cells),
            "number of cells (filtered)": cells,
            "percent knockdown": knockdown,
            "Number of DEGs (anderson-darling)": np.where(
                large, 51 + rng.geometric(0.004, len(cells)), rng.integers(0, 51, len(cells))
            ),
        }
    )
    with pd.ExcelWriter(path) as writer:
        for sheet in SHEETS:
            (table if sheet == SHEETS[1] else table.head(1)).to_excel(writer, sheet_name=sheet, index=False)


if __name__ == "__main__":
    main()
