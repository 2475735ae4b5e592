"""scDataset on an h5ad: blocks of 256 cells, four batches a fetch (8,192 cells).

python scdataset_h5ad.py H5AD GENES documented|masked

documented: a backed AnnData and `adata_to_mindex`, as its documentation has it; for some of the genes the fetched rows
stay sparse instead, and columns are chosen before a batch becomes dense, which is faster.
masked: a fetch of our own that asks AnnData for a boolean mask, so that it reads runs of rows at once; not documented.
"""

import sys
from collections.abc import Iterator

import anndata
import h5py
import numpy as np
import torch
from anndata.io import sparse_dataset
from scdataset import BlockShuffling, scDataset
from scdataset.transforms import adata_to_mindex
from scipy import sparse
from serve import serve

CELLS = 2048
BLOCK = 256
BATCHES_PER_FETCH = 4


class Matrix:
    """A backed sparse matrix with a length, which scDataset asks for."""

    def __init__(self, path: str) -> None:
        self.on_disk = sparse_dataset(h5py.File(path)["X"])
        self.shape = self.on_disk.shape

    def __len__(self) -> int:
        return self.shape[0]


def masked_rows(matrix: Matrix, rows: np.ndarray) -> sparse.csr_matrix:
    mask = np.zeros(len(matrix), dtype=bool)
    mask[rows] = True
    return matrix.on_disk[mask]


def dataset(path: str, n_genes: int, how: str) -> scDataset:
    rng = np.random.default_rng(0)

    def cut(fetched: sparse.csr_matrix, rows: np.ndarray) -> sparse.csr_matrix:
        all_genes = fetched.shape[1]
        if n_genes == all_genes:
            return fetched[rows]
        return fetched[rows][:, np.sort(rng.choice(all_genes, n_genes, replace=False))]

    backed = anndata.read_h5ad(path, backed="r")
    common = {"batch_size": CELLS, "fetch_factor": BATCHES_PER_FETCH, "drop_last": True, "seed": 0}
    dense = {"batch_callback": cut, "batch_transform": lambda batch: torch.from_numpy(batch.toarray())}
    shuffled = BlockShuffling(block_size=BLOCK)
    if how == "masked":
        return scDataset(Matrix(path), shuffled, fetch_callback=masked_rows, **dense, **common)
    if n_genes < backed.n_vars:
        return scDataset(backed, shuffled, fetch_transform=lambda fetched: fetched.to_memory().X, **dense, **common)
    transforms = {"fetch_transform": adata_to_mindex, "batch_transform": lambda batch: torch.from_numpy(batch["X"])}
    return scDataset(backed, shuffled, **transforms, **common)


def batches(epochs: scDataset) -> Iterator[torch.Tensor]:
    while True:
        yield from epochs


if __name__ == "__main__":
    genes = int(sys.argv[2])
    serve(batches(dataset(sys.argv[1], genes, sys.argv[3])), (CELLS, genes))
