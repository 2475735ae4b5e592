"""A Perturb-seq store made on the spot, large enough for CausalBench's limits, and views of it."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.store import Store, open_store
from grndist.data.view import View
from grndist.genes import NON_TARGETING

N_GENES = 40
# symbol -> number of cells; S30 and S31 are perturbed too seldom, OUT is not measured
GROUPS = {NON_TARGETING: 400, "S3": 250, "S0": 180, "S7": 160, "S12": 130, "S30": 60, "S31": 100, "OUT": 150}


@cache
def perturb_seq(seed: int = 0) -> tuple[sparse.csr_matrix, pd.DataFrame, pd.DataFrame]:
    """Counts, obs and var, as Replogle et al. name things: genes by Ensembl id, their symbols beside."""
    rng = np.random.default_rng(seed)
    symbols = rng.permutation(np.repeat(list(GROUPS), list(GROUPS.values())))
    rates = rng.gamma(0.6, 2, N_GENES)
    rates[[3, 12]] = 12, 5  # so that the 10th percentile of controls is above 0
    counts = rng.poisson(rates * rng.gamma(4, 0.25, (len(symbols), 1)))
    for gene, left in ((0, 0.4), (3, 0.3), (7, 0.05), (12, 0.9), (30, 0.2), (31, 0.2)):
        cells = symbols == f"S{gene}"
        counts[cells, gene] = rng.binomial(counts[cells, gene], left)
    counts[[5, 77, 900]] = 0  # cells in which nothing was seen
    counts[:, 39] = 0
    ids = [NON_TARGETING if symbol == NON_TARGETING else f"ENSG{symbol}" for symbol in symbols]
    obs = pd.DataFrame(
        {"perturbation": ids, "gene": symbols, "batch": rng.choice(["b1", "b2"], len(symbols))},
        index=[f"cell{number}" for number in rng.permutation(len(symbols))],
    )
    var = pd.DataFrame({"gene_name": [f"S{number}" for number in range(N_GENES)]})
    var.index = [f"ENSGS{number}" for number in range(N_GENES)]
    return sparse.csr_matrix(counts), obs, var


def perturb_seq_store(folder: Path, seed: int = 0, shuffle_seed: int = 0) -> Store:
    counts, obs, var = perturb_seq(seed)
    write_store(folder / "p.zarr", counts, obs, var, "counts", {}, shuffle_seed=shuffle_seed)
    return open_store(folder / "p.zarr")


def dense(view: View) -> np.ndarray:
    return np.concatenate([values.toarray() for _, values in view.blocks()])


def names(view: View) -> list[str]:
    return [str(name) for name in view.obs.index]


def said(view: View, words: str) -> bool:
    return any(words in line for line in view.lines)


def summary_table(folder: Path, **columns: list) -> Path:
    """A table of summary statistics in which S12 has too few DEGs, S31 too few cells, OUT no knock-down."""
    table = pd.DataFrame(
        {
            "genetic perturbation": [f"{at}_{name}_P1P2_ENSG{name}" for at, name in enumerate(list(GROUPS)[1:])],
            "Number of DEGs (anderson-darling)": [51, 900, 70, 50, 200, 300, 400],
            "percent knockdown": [-0.3, -0.9, -0.8, -0.9, -0.31, -0.8, np.nan],
            "number of cells (filtered)": [250, 180, 160, 130, 26, 25, 150],
        }
        | columns
    )
    table.to_csv(folder / "summary.csv", index=False)
    return folder / "summary.csv"
