"""Batches of a store in the order of a plan: `batch_at(step)` starts anywhere."""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from scipy import sparse

from grndist.data.batch import Batch
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.plan import Plan, streams_of
from grndist.data.store import BLOCK, Store

CACHE_BYTES = 512 * 2**20


@dataclass
class Loader:
    """Reads the blocks a step needs, keeping recent ones, and cuts dense float32 batches from them."""

    store: Store
    plan: Plan
    config: ExpressionConfig
    rank: int = 0
    world: int = 1
    _blocks: OrderedDict[int, sparse.csr_matrix] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def batch_at(self, step: int) -> Batch:
        """The batch of global step `step`, counted from 0 over all epochs."""
        epoch, step = divmod(step, self.plan.steps_per_epoch)
        logical = streams_of(self.rank, self.world, self.plan.streams)
        shares = [self.plan.share(epoch, step, one) for one in logical]
        rows = np.concatenate(shares)
        genes = self.plan.genes(epoch, step)
        values = self._take(rows)
        seen = expression(values, self.store.totals[rows], self.store, self.config)
        return Batch(
            expression=torch.from_numpy(_dense(seen, genes)),
            is_nonzero=torch.from_numpy(_dense(values, genes) != 0),
            genes=torch.from_numpy(genes),
            perturbed=torch.from_numpy(self.store.perturbed[rows]),
            shares=tuple(zip(logical, map(len, shares), strict=True)),
            seed=self.plan.seed,
            epoch=epoch,
            step=step,
        )

    def _take(self, rows: Int64[np.ndarray, " cells"]) -> sparse.csr_matrix:
        """Cells `rows` of the store, in that order, all genes."""
        blocks, inverse = np.unique(rows // BLOCK, return_inverse=True)
        parts = [self._block(int(block))[rows[inverse == at] % BLOCK] for at, block in enumerate(blocks)]
        place = np.empty(len(rows), dtype=np.int64)
        place[np.argsort(inverse, kind="stable")] = np.arange(len(rows))
        return sparse.csr_matrix(sparse.vstack(parts, format="csr")[place])

    def _block(self, block: int) -> sparse.csr_matrix:
        if block in self._blocks:
            self._blocks.move_to_end(block)
            return self._blocks[block]
        values = self.store.read_rows(block * BLOCK, min((block + 1) * BLOCK, self.store.n_cells))
        self._blocks[block] = values
        self._bytes += _size(values)
        while self._bytes > CACHE_BYTES and len(self._blocks) > 1:
            self._bytes -= _size(self._blocks.popitem(last=False)[1])
        return values


def _size(values: sparse.csr_matrix) -> int:
    return int(values.data.nbytes + values.indices.nbytes + values.indptr.nbytes)


def _dense(values: sparse.csr_matrix | np.ndarray, genes: Int64[np.ndarray, " genes"]) -> np.ndarray:
    """Columns `genes` as a dense float32 array."""
    chosen = values if len(genes) == values.shape[1] else values[:, genes]
    dense = chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
    return np.ascontiguousarray(dense, dtype=np.float32)
