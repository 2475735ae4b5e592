import hashlib
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grndist.data.ingest.build import write_store
from grndist.data.normalise import ExpressionConfig, expression, moments, standardised
from grndist.data.store import Store, StoreError, open_store
from grndist.data.stream.batch import Batch
from grndist.data.stream.device import Sparse, dense_on
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import BalancedPlan, Plan, ShuffledPlan, cells
from grndist.data.view import View, whole
from grndist.seeds import stream
from tests.conftest import genes, small_counts

CONFIG = ExpressionConfig()
EVERY_CONFIG = [
    ExpressionConfig(transform=transform, cell_minmax=minmax, zscore=zscore, clip=clip)
    for transform in ("none", "log1p", "clr")
    for minmax in (False, True)
    for zscore, clip in (("none", None), ("all", None), ("nonzero", 1.0))
]


def plan(view: View, streams: int = 3, genes_per_step: int = 5) -> ShuffledPlan:
    return ShuffledPlan(
        view.n_cells, view.n_genes, cells_per_step=70, genes_per_step=genes_per_step, seed=3, streams=streams,
        cells_per_block=16, cells_per_window=40,
    )  # fmt: skip


def balanced(view: View, streams: int = 3) -> BalancedPlan:
    return BalancedPlan(
        view.perturbed, view.n_genes, 60, 5, seed=3, streams=streams, cells_per_label=10, cells_per_epoch=300,
        control_share=0.25, cells_per_window=30,
    )  # fmt: skip


def some_of(store: Store) -> View:
    """A view of two thirds of the cells and three quarters of the genes."""
    rows = np.flatnonzero(np.arange(store.n_cells) % 3 != 1)
    return View(store, rows, np.array([0, 1, 3, 4, 5, 7, 8, 10, 11]), 7.5)


def defined(view: View, config: ExpressionConfig) -> np.ndarray:
    """What `normalise` says the expression of a view is."""
    values = view.store.read_cells(view.rows)
    found = expression(values, view.totals, view, config)
    dense = found if isinstance(found, np.ndarray) else found.toarray()
    return standardised(dense.astype(np.float64), *moments(view, config), config)


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=lambda config: f"{config.transform}-{config.zscore}")
@pytest.mark.parametrize("seen", [whole, some_of], ids=["whole", "view"])
@pytest.mark.parametrize("make", [plan, balanced], ids=["shuffled", "balanced"])
def test_a_batch_is_what_plan_and_definition_say(store: Store, seen, make, config: ExpressionConfig):
    view = seen(store)
    drawn = make(view)
    loader = Loader(view, drawn, config)
    stored = view.cut(store.read_cells(view.rows)).toarray() != 0
    wanted = defined(view, config)
    for step in (0, 3, 11):
        batch = loader.batch_at(step)
        epoch, inside = divmod(step, drawn.steps_per_epoch)
        rows, columns = cells(drawn, epoch, inside), drawn.genes(epoch, inside)
        assert np.allclose(batch.expression, wanted[rows][:, columns], rtol=1e-5, atol=1e-6)
        assert np.array_equal(batch.is_nonzero, stored[rows][:, columns])
        assert np.array_equal(batch.perturbed, view.perturbed[rows])
        assert np.array_equal(batch.genes, columns)
        assert batch.expression.dtype == torch.float32


@pytest.mark.parametrize("transform", ["none", "log1p", "clr"])
def test_counts_beyond_the_table_and_values_that_are_no_counts(tmp_path: Path, transform: str):
    counts, obs = small_counts()
    config = ExpressionConfig(transform=transform)
    for name, matrix, state in (("a", counts * 30_000, "counts"), ("b", counts * 0.37, "continuous")):
        write_store(tmp_path / name, matrix, obs, genes(12), state, {})
        view = whole(open_store(tmp_path / name))
        batch = Loader(view, plan(view, genes_per_step=12), config).batch_at(2)
        rows = cells(plan(view), 0, 2)
        assert np.allclose(batch.expression, defined(view, config)[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transform", ["none", "log1p"])
@pytest.mark.parametrize("factor", [1, 30_000])
def test_what_a_device_makes_dense_is_the_same(tmp_path: Path, transform: str, factor: int):
    counts, obs = small_counts()
    write_store(tmp_path / "a", counts * factor, obs, genes(12), "counts", {})  # uint16 and uint32
    view = some_of(open_store(tmp_path / "a"))
    loader = Loader(view, plan(view), ExpressionConfig(transform=transform), ahead=False)
    wanted = loader.batch_at(2)
    rows, columns = cells(plan(view), 0, 2), plan(view).genes(0, 2)
    values = view.store.read_cells(np.sort(view.rows[rows]))[np.argsort(np.argsort(rows))]
    sparse = Sparse(values.data, values.indices.astype(np.uint16), np.diff(values.indptr).astype(np.int64))
    scale = None if transform == "none" else view.median_total / view.totals[rows]
    slot = np.full(view.store.n_genes, -1)
    slot[view.columns[columns]] = np.arange(len(columns))
    found = dense_on(torch.device("cpu"), sparse, scale, slot, len(columns))
    assert torch.allclose(found, wanted.expression, rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("config", EVERY_CONFIG, ids=lambda config: f"{config.transform}-{config.zscore}")
def test_a_gpu_gets_the_same_batch(store: Store, config: ExpressionConfig):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    view = some_of(store)
    here = Loader(view, plan(view), config).batch_at(4)
    there = Loader(view, plan(view), config, device=torch.device("cuda")).batch_at(4)
    assert there.expression.is_cuda
    assert torch.allclose(there.expression.cpu(), here.expression, rtol=1e-5, atol=1e-6)
    assert torch.equal(there.is_nonzero.cpu(), here.is_nonzero)


# --- any number of workers, any step first ---


def fingerprint(batches: list[Batch]) -> dict[int, bytes]:
    """What each logical stream brought to a step, values and genes."""
    found = {}
    for batch in batches:
        counts = [count for _, count in batch.shares]
        for (logical, _), rows in zip(batch.shares, batch.expression.split(counts), strict=True):
            found[logical] = rows.numpy().tobytes() + batch.genes.numpy().tobytes()
    return found


@pytest.mark.parametrize("kind", [plan, balanced])
def test_an_epoch_has_the_same_hash_for_any_number_of_workers(store: Store, kind):
    view, hashes = whole(store), set()
    for world in (1, 2, 3, 4, 8):
        workers = [Loader(view, kind(view, 8), CONFIG, rank, world) for rank in range(world)]
        steps = range(workers[0].plan.steps_per_epoch)
        epoch = [fingerprint([worker.batch_at(step) for worker in workers]) for step in steps]
        found = b"".join(batch[logical] for batch in epoch for logical in range(8))
        hashes.add(hashlib.sha256(found).hexdigest())
    assert len(hashes) == 1


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    world=st.sampled_from([1, 2, 3, 4, 8]),
    other_world=st.sampled_from([1, 2, 3, 4, 8]),
    resumed=st.integers(0, 12),
    kind=st.sampled_from([plan, balanced]),
)
def test_any_number_of_workers_and_any_resume_see_the_same_batches(
    store: Store, world: int, other_world: int, resumed: int, kind
):
    view = whole(store)
    steps = 2 * kind(view, 8).steps_per_epoch
    alone = Loader(view, kind(view, 8), CONFIG)
    wanted = [fingerprint([alone.batch_at(step)]) for step in range(steps)]
    workers = [Loader(view, kind(view, 8), CONFIG, rank, world) for rank in range(world)]
    later = [Loader(view, kind(view, 8), CONFIG, rank, other_world) for rank in range(other_world)]
    for step in range(steps):
        assert fingerprint([worker.batch_at(step) for worker in workers]) == wanted[step]
        if step >= resumed:
            assert fingerprint([worker.batch_at(step) for worker in later]) == wanted[step]


@pytest.mark.parametrize("streams", [1, 3, 8])
def test_an_epoch_brings_every_cell_once(store: Store, streams: int):
    view = whole(store)
    drawn = plan(view, streams, genes_per_step=12)
    loader = Loader(view, drawn, ExpressionConfig(transform="none"))
    for epoch in (0, 1):
        first = epoch * drawn.steps_per_epoch
        batches = [loader.batch_at(first + step).expression.clone() for step in range(drawn.steps_per_epoch)]
        found = torch.cat(batches).numpy()
        order = np.concatenate([cells(drawn, epoch, step) for step in range(drawn.steps_per_epoch)])
        assert np.array_equal(np.sort(order), np.arange(300))
        assert np.array_equal(found[np.argsort(order)], store.read_rows(0, 300).toarray())


def test_noise_belongs_to_the_stream_and_not_to_the_worker(store: Store):
    def noise(batch: Batch) -> dict[int, torch.Tensor]:
        drawn = batch.draw("latent", lambda rng, rows: rng.random((rows.stop - rows.start, 2)))
        return dict(zip([v for v, _ in batch.shares], drawn.split([n for _, n in batch.shares]), strict=True))

    view = whole(store)
    alone = noise(Loader(view, plan(view), CONFIG).batch_at(4))
    second = noise(Loader(view, plan(view), CONFIG, 1, 2).batch_at(4))
    assert list(second) == [1]
    assert torch.equal(second[1], alone[1])


# --- memory and the background ---


@pytest.mark.parametrize("kind", [plan, balanced])
def test_decoding_ahead_changes_nothing_whatever_the_order_of_steps(store: Store, kind):
    view = whole(store)
    ahead, inline = (Loader(view, kind(view), CONFIG, ahead=ahead) for ahead in (True, False))
    for step in stream(0, "steps").integers(0, 15, 30):
        assert torch.equal(ahead.batch_at(int(step)).expression, inline.batch_at(int(step)).expression)


def test_batches_that_are_kept_stay_as_they_are(store: Store):
    view = whole(store)
    loader = Loader(view, plan(view), CONFIG)
    kept = [loader.batch_at(step).expression for step in range(12)]
    again = [loader.batch_at(step).expression for step in range(12)]
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def test_memory_is_used_again_once_nobody_holds_it(store: Store):
    view = whole(store)
    loader = Loader(view, plan(view), CONFIG)
    used = []
    for step in range(40):
        loader.batch_at(step)
        used.append({id(array) for array in loader._buffers._arrays[np.dtype(np.float32)]})
    assert used[10] == used[-1]
    assert len(used[-1]) == 1


def test_a_stream_holds_the_window_in_use_and_the_next(store: Store):
    view = whole(store)
    for streams in (1, 4):
        loader = Loader(view, plan(view, streams), CONFIG)
        for step in range(9):
            loader.batch_at(step)
            assert len(loader._windows._here) + len(loader._windows._coming) <= 4 * streams


def test_damage_in_the_background_is_the_same_error(store_path: Path):
    store = open_store(store_path)
    assert store.indptr[-1] > 0
    assert len(store.perturbed) == 300
    assert len(store.totals) == 300
    shutil.rmtree(store_path / "X" / "data")
    loader = Loader(whole(store), plan(whole(store)), CONFIG)
    with pytest.raises(StoreError, match=r"X/data/zarr.json"):
        loader.batch_at(0)


def test_a_store_deleted_while_read_is_noticed(store_path: Path):
    store = open_store(store_path)
    view = whole(store)
    loader = Loader(view, plan(view), CONFIG, ahead=False)
    loader.batch_at(0)
    shutil.rmtree(store_path)
    with pytest.raises(StoreError, match=r"X/data/c/0 is damaged \(it is missing: was the store deleted while"):
        [loader.batch_at(step) for step in range(1, 5)]


@pytest.mark.parametrize("ahead", [True, False])
def test_what_could_not_be_read_is_tried_again(store_path: Path, ahead: bool):
    shard = store_path / "X" / "data" / "c" / "0"
    good = shard.read_bytes()
    view = whole(open_store(store_path))
    wanted = Loader(view, plan(view), CONFIG).batch_at(3).expression
    view = whole(open_store(store_path))
    loader = Loader(view, plan(view), CONFIG, ahead=ahead)
    shard.write_bytes(good[:-1])
    for _ in range(2):
        with pytest.raises(StoreError, match="X/data/c/0 is damaged"):
            loader.batch_at(3)
    shard.write_bytes(good)
    assert torch.equal(loader.batch_at(3).expression, wanted)


def test_a_loader_that_is_let_go_frees_its_memory_at_once(store: Store):
    view = whole(store)
    loader = Loader(view, plan(view), CONFIG, ahead=False)
    loader.batch_at(0)
    buffers = weakref.ref(loader._buffers)
    del loader
    assert buffers() is None


def test_a_worker_without_cells_gets_an_empty_batch(store: Store):
    view = whole(store)
    loader = Loader(view, plan(view, streams=2), CONFIG, rank=3, world=4)
    assert loader.batch_at(0).expression.shape == (0, 5)
    assert len(loader._sparse([]).data) == 0


def test_plans_are_plans(store: Store):
    assert isinstance(plan(whole(store)), Plan)
    assert isinstance(balanced(whole(store)), Plan)
