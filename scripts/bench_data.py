"""Counts for the benchmarks: as dense and as deep as genome-scale Perturb-seq, and meaningless otherwise.

Negative binomial with a mean and a dispersion for each gene, log-normal means, about 7,500 counts a cell; at 8,192
genes 26 % of the values are not zero. 2,000 perturbation labels if nothing is said, without any effect on expression.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

GENES = 8192
COUNTS_PER_CELL = 7500
ROWS = 2048
CHUNK = 25_600  # values; about what h5py gives AnnData's writer for arrays of this size


def write_h5ad(
    path: Path, n_cells: int, n_genes: int = GENES, seed: int = 0, prefix: str = "cell", perturbed: int = 1999
) -> int:
    """Write an h5ad as they are usually published (CSR, float32, int32, not compressed); return its stored values."""
    rng = np.random.default_rng([seed, 1])
    mean = rng.lognormal(0, 1.7, n_genes)
    mean *= COUNTS_PER_CELL * n_genes / GENES / mean.sum()
    dispersion = rng.lognormal(0.3, 0.5, n_genes)
    with h5py.File(path, "w") as file, ThreadPoolExecutor(2) as pool:
        data, indices = (
            file.create_dataset(f"X/{name}", (0,), dtype, maxshape=(None,), chunks=(CHUNK,))
            for name, dtype in (("data", np.float32), ("indices", np.int32))
        )
        indptr, stored = [np.zeros(1, dtype=np.int64)], 0
        for start in range(0, n_cells, 8 * ROWS):
            starts = range(start, min(start + 8 * ROWS, n_cells), ROWS)
            parts = [(seed, one, min(ROWS, n_cells - one), mean, dispersion) for one in starts]
            for block in pool.map(lambda part: _counts(*part), parts):
                data.resize((stored + block.nnz,))
                indices.resize((stored + block.nnz,))
                data[stored:], indices[stored:] = block.data, block.indices
                indptr.append(block.indptr[1:].astype(np.int64) + stored)
                stored += block.nnz
        file["X/indptr"] = np.concatenate(indptr)
        file["X"].attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, n_genes]}
        )
        write_tables(file, n_cells, n_genes, seed, prefix, perturbed)
    return stored


def write_tables(file: h5py.File, n_cells: int, n_genes: int, seed: int, prefix: str, perturbed: int = 1999) -> None:
    """The tables of cells and genes of an h5ad, and what makes it one."""
    rng = np.random.default_rng([seed, 2])
    labels = np.array(["non-targeting", *(f"G{number:05d}" for number in range(min(perturbed, n_genes)))])
    codes = np.where(rng.random(n_cells) < 0.05, 0, rng.integers(1, len(labels), n_cells))
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(codes, labels),
            "gem_group": pd.Categorical.from_codes(rng.integers(0, 48, n_cells), [f"gem{n}" for n in range(48)]),
        },
        index=[f"{prefix}{number:07d}" for number in range(n_cells)],
    )
    write_elem(file, "obs", obs)
    write_elem(file, "var", pd.DataFrame(index=[f"G{number:05d}" for number in range(n_genes)]))
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


def _counts(seed: int, start: int, n_cells: int, mean: np.ndarray, dispersion: np.ndarray) -> sparse.csr_matrix:
    rng = np.random.default_rng([seed, 3, start])
    depth = rng.lognormal(-0.045, 0.3, (n_cells, 1)).astype(np.float32)
    rate = rng.standard_gamma(dispersion.astype(np.float32), (n_cells, len(mean)), dtype=np.float32)
    rate *= (mean / dispersion).astype(np.float32)
    rate *= depth
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
