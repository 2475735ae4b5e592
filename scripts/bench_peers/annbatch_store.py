"""annbatch on grndist's store, which is a shuffled AnnData: slices of 256 rows, 32 in memory, densified by scipy.

python annbatch_store.py STORE GENES

Reads through zarrs, as annbatch recommends. The batches are NumPy's: making tensors of them copies nothing, and PyTorch
would be the largest part of this environment.
"""

import sys
from collections.abc import Iterator

import anndata
import numpy as np
import zarr
from annbatch import Loader
from anndata.io import sparse_dataset
from serve import serve

CELLS = 2048
ROWS_PER_SLICE = 256
SLICES = 32


def batches(path: str, n_genes: int) -> Iterator[np.ndarray]:
    matrix, rng = sparse_dataset(zarr.open_group(path, mode="r")["X"]), np.random.default_rng(0)
    loader = Loader(
        chunk_size=ROWS_PER_SLICE,
        preload_nchunks=SLICES,
        batch_size=CELLS,
        shuffle=True,
        drop_last=True,
        preload_to_gpu=False,
        rng=rng,
    )
    loader.add_adatas([anndata.AnnData(X=matrix)])
    while True:
        for batch in loader:
            found = batch["X"]
            if n_genes < found.shape[1]:
                found = found[:, np.sort(rng.choice(found.shape[1], n_genes, replace=False))]
            yield found.astype(np.float32).toarray()


if __name__ == "__main__":
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    genes = int(sys.argv[2])
    serve(batches(sys.argv[1], genes), (CELLS, genes))
