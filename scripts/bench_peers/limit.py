"""What decoding and densifying cost if nothing else did: compressed chunks in memory, one thread, warm buffers.

python limit.py STORE GENES
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numcodecs import blosc
from serve import serve

from grndist.data.store import CHUNK, SHARD, open_store
from grndist.data.stream.kernels import densify

CELLS = 2048
WINDOW = 8192


def batches(path: str, n_genes: int) -> Iterator[torch.Tensor]:
    store = open_store(path)
    kinds = dict(zip(("data", "indices"), store.dtypes, strict=True))
    chunks = {kind: in_memory(Path(path, "X", kind)) for kind in kinds}
    indptr, rng = store.indptr, np.random.default_rng(0)
    starts = range(0, store.n_cells - WINDOW + 1, WINDOW)
    touched = {start: range(indptr[start] // CHUNK, -(-indptr[start + WINDOW] // CHUNK)) for start in starts}
    size = CHUNK * max(map(len, touched.values()))
    window = {kind: np.empty(size, dtype) for kind, dtype in kinds.items()}
    out = np.empty((CELLS, n_genes), np.float32)
    for start in itertools.cycle(starts):
        for kind, place in window.items():
            for at, chunk in enumerate(touched[start]):
                blosc.decompress(chunks[kind][chunk], place[at * CHUNK : (at + 1) * CHUNK])
        inside = indptr[start : start + WINDOW + 1] - touched[start][0] * CHUNK
        for first in range(0, WINDOW, CELLS):
            slot = np.full(store.n_genes, -1)
            slot[np.sort(rng.choice(store.n_genes, n_genes, replace=False))] = np.arange(n_genes)
            densify(window["data"], window["indices"], inside, np.arange(first, first + CELLS), slot, out)
            yield torch.from_numpy(out)


def in_memory(array: Path) -> list[bytes]:
    """The compressed chunks of an array, in order, without their checksums."""
    shards = sorted((array / "c").iterdir(), key=lambda shard: int(shard.name))
    return [chunk for shard in shards for chunk in chunks_of(shard.read_bytes())]


def chunks_of(shard: bytes) -> list[bytes]:
    size = 16 * SHARD // CHUNK + 4
    index = np.frombuffer(shard[-size:-4], dtype="<u8").reshape(-1, 2).tolist()
    return [shard[offset : offset + size - 4] for offset, size in index if offset < len(shard)]


if __name__ == "__main__":
    blosc.use_threads = False
    genes = int(sys.argv[2])
    serve(batches(sys.argv[1], genes), (CELLS, genes))
