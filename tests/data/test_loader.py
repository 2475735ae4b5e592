import numpy as np
import pytest
import torch

from grndist.data import loader as module
from grndist.data.loader import Loader
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.plan import ShuffledPlan, cells
from grndist.data.store import Store

CONFIG = ExpressionConfig()


def plan(streams: int = 3) -> ShuffledPlan:
    return ShuffledPlan(300, 12, cells_per_step=70, genes_per_step=5, seed=3, streams=streams, cells_per_block=16)


@pytest.mark.parametrize("step", [0, 3, 11])
def test_a_batch_holds_the_cells_and_genes_of_the_plan(store: Store, step: int):
    batch = Loader(store, plan(), CONFIG).batch_at(step)
    epoch, inside = divmod(step, plan().steps_per_epoch)
    rows, genes = cells(plan(), epoch, inside), plan().genes(epoch, inside)
    every = expression(store.read_rows(0, 300), store.totals, store, CONFIG).toarray()
    assert np.array_equal(batch.expression.numpy(), every[rows][:, genes])
    assert np.array_equal(batch.is_nonzero.numpy(), store.read_rows(0, 300).toarray()[rows][:, genes] != 0)
    assert np.array_equal(batch.perturbed.numpy(), store.perturbed[rows])
    assert batch.expression.dtype == torch.float32


def test_a_small_cache_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BLOCK", 16)
    wanted = [Loader(store, plan(), CONFIG).batch_at(step).expression for step in range(6)]
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    small = Loader(store, plan(), CONFIG)
    for step in range(6):
        assert torch.equal(small.batch_at(step).expression, wanted[step])
    assert len(small._blocks) == 1


@pytest.mark.parametrize("world", [2, 3])
def test_workers_together_read_the_global_batch(store: Store, world: int):
    alone = Loader(store, plan(), CONFIG).batch_at(4)
    own = [Loader(store, plan(), CONFIG, rank, world).batch_at(4) for rank in range(world)]
    assert sum(len(batch.expression) for batch in own) == len(alone.expression)
    shares = dict(split(alone))
    for batch in own:
        for logical, rows in split(batch):
            assert torch.equal(rows, shares[logical])


def test_noise_belongs_to_the_stream_and_not_to_the_worker(store: Store):
    def noise(batch):
        drawn = batch.draw("latent", lambda rng, rows: rng.random((rows.stop - rows.start, 2)))
        return dict(zip([v for v, _ in batch.shares], drawn.split([n for _, n in batch.shares]), strict=True))

    alone = noise(Loader(store, plan(), CONFIG).batch_at(4))
    second = noise(Loader(store, plan(), CONFIG, 1, 2).batch_at(4))
    assert list(second) == [1]
    assert torch.equal(second[1], alone[1])


def split(batch):
    return list(zip([v for v, _ in batch.shares], batch.expression.split([n for _, n in batch.shares]), strict=True))
