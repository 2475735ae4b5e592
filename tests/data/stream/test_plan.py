import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.data.stream.plan import (
    CELLS_PER_WINDOW,
    WINDOW_BYTES,
    BalancedPlan,
    Piece,
    Plan,
    ShuffledPlan,
    cells,
    cells_per_window,
    streams_of,
)
from grndist.genes import CONTROL, UNMAPPED

LABELS = np.array([CONTROL] * 400 + [0] * 60 + [1] * 30 + [2] * 7 + [UNMAPPED] * 3)


def plans() -> st.SearchStrategy[ShuffledPlan]:
    return st.builds(
        ShuffledPlan,
        n_cells=st.integers(1, 700),
        n_genes=st.just(50),
        cells_per_step=st.integers(1, 200),
        genes_per_step=st.integers(1, 60),
        seed=st.integers(0, 5),
        streams=st.integers(1, 6),
        cells_per_block=st.integers(1, 64),
        cells_per_window=st.integers(1, 200),
    )


@given(plan=plans(), epoch=st.integers(0, 3))
def test_an_epoch_visits_every_cell_once(plan: ShuffledPlan, epoch: int):
    visited = np.concatenate([cells(plan, epoch, step) for step in range(plan.steps_per_epoch)])
    assert np.array_equal(np.sort(visited), np.arange(plan.n_cells))


def rows(share: list[Piece]) -> list[int]:
    return [int(cell) for piece in share for cell in piece.cells]


@given(plan=plans(), world=st.integers(1, 6), step=st.integers(0, 9))
def test_the_global_batch_does_not_depend_on_the_number_of_workers(plan: ShuffledPlan, world: int, step: int):
    step %= plan.steps_per_epoch
    alone = {logical: rows(plan.share(0, step, logical)) for logical in range(plan.streams)}
    dealt = {}
    for rank in range(world):
        own = streams_of(rank, world, plan.streams)
        assert cells(plan, 0, step, rank, world).tolist() == [cell for logical in own for cell in alone[logical]]
        dealt |= {logical: rows(plan.share(0, step, logical)) for logical in own}
    assert dealt == alone


def balanced_plans() -> st.SearchStrategy[BalancedPlan]:
    return st.builds(
        BalancedPlan,
        perturbed=st.just(LABELS),
        n_genes=st.just(50),
        cells_per_step=st.integers(10, 120),
        genes_per_step=st.just(50),
        seed=st.integers(0, 5),
        streams=st.integers(1, 6),
        cells_per_label=st.integers(1, 30),
        cells_per_epoch=st.integers(1, 600),
        control_share=st.sampled_from([None, 0.0, 0.25, 0.5]),
        cells_per_window=st.integers(1, 400),
    )


@settings(max_examples=50, deadline=None)
@given(plan=st.one_of(plans(), balanced_plans()), epoch=st.integers(0, 2))
def test_a_step_needs_only_its_windows_which_come_in_order(plan: Plan, epoch: int):
    for logical in range(plan.streams):
        before = 0
        for step in range(min(plan.steps_per_epoch, 30)):
            for window, inside in plan.share(epoch, step, logical):
                assert before <= window < plan.windows(epoch, logical)
                assert np.isin(inside, plan.window(epoch, logical, window)).all()
                before = window
        for number in range(plan.windows(epoch, logical)):
            assert (np.diff(plan.window(epoch, logical, number)) > 0).all()


@given(plan=plans())
def test_windows_are_of_nearly_equal_size(plan: ShuffledPlan):
    sizes = [len(plan.window(0, v, w)) for v in range(plan.streams) for w in range(plan.windows(0, v))]
    assert max(sizes) <= plan.cells_per_window
    assert max(sizes) - min(sizes) <= 2 * min(plan.cells_per_block, max(sizes))
    if plan._n_blocks >= len(sizes):
        assert min(sizes) > 0


def test_a_window_fits_the_memory_of_one_process():
    assert cells_per_window(1, 8500.0) == CELLS_PER_WINDOW
    for streams in (4, 16, 256):
        assert 3 * streams * 8500.0 * cells_per_window(streams, 8500.0) <= WINDOW_BYTES
    assert cells_per_window(10**9, 8500.0) == 1


def test_batches_are_of_nearly_equal_size():
    plan = ShuffledPlan(n_cells=383, n_genes=5, cells_per_step=64, genes_per_step=5, seed=0)
    assert [len(cells(plan, 0, step)) for step in range(plan.steps_per_epoch)] == [63, 64, 64, 64, 64, 64]


@pytest.mark.parametrize(("n_cells", "cells_per_step", "streams"), [(1000, 8, 8), (5000, 24, 16), (20_000, 100, 16)])
def test_many_streams_do_not_round_down_together(n_cells: int, cells_per_step: int, streams: int):
    plan = ShuffledPlan(n_cells, 5, cells_per_step, genes_per_step=5, seed=0, streams=streams)
    sizes = [len(cells(plan, 0, step)) for step in range(plan.steps_per_epoch)]
    assert max(sizes) - min(sizes) <= max(4, 0.25 * cells_per_step)


def test_a_later_step_can_be_asked_for_directly_and_epochs_differ():
    def fresh() -> ShuffledPlan:
        return ShuffledPlan(n_cells=500, n_genes=50, cells_per_step=60, genes_per_step=8, seed=7, cells_per_block=32)

    played = [cells(fresh(), 0, step) for step in range(9)]
    assert np.array_equal(cells(fresh(), 0, 8), played[8])
    assert not np.array_equal(np.sort(cells(fresh(), 1, 8)), np.sort(played[8]))
    assert not np.array_equal(fresh().genes(0, 1), fresh().genes(0, 2))


@given(plan=plans(), step=st.integers(0, 20))
def test_gene_subsets_are_ascending_without_repeats(plan: ShuffledPlan, step: int):
    genes = plan.genes(0, step)
    assert len(genes) == min(plan.genes_per_step, plan.n_genes)
    assert (np.diff(genes) > 0).all()


def test_every_gene_is_drawn_equally_often():
    plan = ShuffledPlan(n_cells=10, n_genes=20, cells_per_step=10, genes_per_step=5, seed=1)
    counts = np.bincount(np.concatenate([plan.genes(0, step) for step in range(2000)]), minlength=20)
    assert counts.min() > 400  # 500 expected, sd 19
    assert counts.max() < 600


@pytest.mark.parametrize("streams", [1, 4])
def test_balanced_batches_hold_runs_of_each_label(streams: int):
    plan = BalancedPlan(LABELS, 50, 100, 50, seed=0, streams=streams, cells_per_label=25, cells_per_epoch=1000)
    assert plan.steps_per_epoch == 10
    for step in range(plan.steps_per_epoch):
        batch = cells(plan, 0, step)
        labels = np.where(LABELS[batch] == UNMAPPED, CONTROL, LABELS[batch]).reshape(-1, 25)
        assert (labels == labels[:, :1]).all()
        assert sorted(labels[:, 0]) == [CONTROL, 0, 1, 2]


def test_only_labels_with_too_few_cells_repeat_them():
    plan = BalancedPlan(LABELS, 50, 100, 50, seed=0, cells_per_label=25, cells_per_epoch=100)
    batch = cells(plan, 0, 0)
    for label, distinct in ((0, 25), (1, 25), (2, 7)):
        assert len(np.unique(batch[LABELS[batch] == label])) <= distinct
        assert (LABELS[batch] == label).sum() == 25
    assert len(np.unique(batch[LABELS[batch] == 0])) == 25


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("control_share", [0.25, 0.5])
def test_a_share_of_controls_can_be_asked_for(streams: int, control_share: float):
    plan = BalancedPlan(
        LABELS, 50, 120, 50, 0, streams, cells_per_label=10, cells_per_epoch=900, control_share=control_share
    )
    size = round(120 * (1 - control_share))
    assert plan.steps_per_epoch == 900 // size
    drawn = np.concatenate([cells(plan, 0, step) for step in range(plan.steps_per_epoch)])
    counted = {label: int((LABELS[drawn] == label).sum()) for label in (CONTROL, UNMAPPED, 0, 1, 2)}
    assert counted[CONTROL] == (120 - size) * plan.steps_per_epoch
    assert counted[UNMAPPED] == 0
    assert max(counted[0], counted[1], counted[2]) - min(counted[0], counted[1], counted[2]) <= 10
    first = cells(plan, 0, 0)
    assert len(np.unique(first[LABELS[first] == CONTROL])) == 120 - size
