"""Random rows of a backed AnnData through a torch DataLoader; one sorted request a batch, its fastest form.

python anndata_h5ad.py H5AD GENES
"""

import sys
from collections.abc import Iterator

import anndata
import numpy as np
import torch
from scipy import sparse
from serve import serve
from torch.utils.data import DataLoader, Dataset

CELLS = 2048


class Rows(Dataset):
    def __init__(self, path: str) -> None:
        self.backed = anndata.read_h5ad(path, backed="r")

    def __len__(self) -> int:
        return self.backed.n_obs

    def __getitems__(self, rows: list[int]) -> sparse.csr_matrix:
        return self.backed.X[np.sort(rows)]


def batches(path: str, n_genes: int) -> Iterator[torch.Tensor]:
    rows, rng = Rows(path), np.random.default_rng(0)

    def dense(batch: sparse.csr_matrix) -> torch.Tensor:
        if n_genes < batch.shape[1]:
            batch = batch[:, np.sort(rng.choice(batch.shape[1], n_genes, replace=False))]
        return torch.from_numpy(batch.toarray())

    while True:
        yield from DataLoader(rows, batch_size=CELLS, shuffle=True, drop_last=True, collate_fn=dense)


if __name__ == "__main__":
    genes = int(sys.argv[2])
    serve(batches(sys.argv[1], genes), (CELLS, genes))
