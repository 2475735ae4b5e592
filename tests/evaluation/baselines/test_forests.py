from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from grndist.data.view import View
from grndist.errors import UserError
from grndist.evaluation.baselines import baseline_edges, parts_of, processes
from grndist.evaluation.baselines.tasks import Work
from grndist.evaluation.baselines.trees import Problem, boosted_importances, weights_of_target
from grndist.files import locked

HERE = processes(1)


@pytest.fixture(scope="module")
def small(stored) -> View:
    return stored(n_genes=8, n_cells=200)


@pytest.mark.parametrize(
    ("method", "n_genes", "n_cells", "workers"),
    [("grnboost2", 8, 200, 2), pytest.param("genie3", 3, 40, 1, marks=pytest.mark.slow)],
)
def test_edges_depend_on_neither_order_of_genes_nor_storage_nor_workers(
    method: str, n_genes: int, n_cells: int, workers: int, stored
):
    one = stored(n_genes, n_cells)
    other = stored(n_genes, n_cells, order_seed=5, profile="archive")  # dense
    assert one.panel.names != other.panel.names
    first = baseline_edges(one, method, seed=4, run_tasks=HERE).table
    second = baseline_edges(other, method, seed=4, run_tasks=processes(workers)).table
    assert len(first) >= n_genes
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_the_seed_and_the_target_change_the_trees(small: View):
    first, second = (baseline_edges(small, "grnboost2", seed=seed, run_tasks=HERE).table for seed in (0, 1))
    assert not first.equals(second)


def test_limits_are_those_of_the_whole_list_but_fewer_regulators_are_another_problem(small: View):
    every = baseline_edges(small, "grnboost2", run_tasks=HERE).table
    pd.testing.assert_frame_equal(baseline_edges(small, "grnboost2", k=9, run_tasks=HERE).table, every.head(9))
    limited = baseline_edges(small, "grnboost2", regulators=small.panel.names[2:5], run_tasks=HERE).table
    assert set(limited["regulator"]) == set(small.panel.names[2:5])
    assert set(limited["target"]) == set(small.panel.names)


def problem(cells: int = 150) -> Problem:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(cells, 6)).astype(np.float32)
    values[:, 2] += 2 * values[:, 4]
    values[:, 3] = 1
    return Problem("grnboost2", 0, tuple("abcdef"), values, np.array([0, 1, 2, 4]))


def test_a_target_is_explained_by_others_and_a_constant_one_by_nobody():
    target, weights = weights_of_target(problem(), 2)
    assert target == 2
    assert weights.argmax() == 3  # column 4
    assert weights[2] == 0  # itself
    assert not weights_of_target(problem(), 3)[1].any()
    assert weights_of_target(problem(), 5)[1].any()


def test_boosting_ends_when_a_window_of_25_rounds_has_done_harm_and_weights_sum_to_the_rounds():
    x, y = problem().values[:, [0, 1, 4]], problem().values[:, 2].astype(np.float64)
    rounds = round(boosted_importances(x, y, 7).sum())
    again = GradientBoostingRegressor(
        learning_rate=0.01, n_estimators=rounds, max_features=0.1, subsample=0.9, random_state=7
    ).fit(x, y)
    windows = np.convolve(again.oob_improvement_, np.full(25, 1 / 25), "valid")
    assert 25 <= rounds < 5000
    assert windows[-1] < 0
    assert (windows[:-1] >= 0).all()
    np.testing.assert_allclose(boosted_importances(x, y, 7), again.feature_importances_ * rounds, rtol=1e-12)


class Killed(BaseException):
    pass


def after(number: int):
    """Does so many tasks, then ends as a signal would end it."""

    def run(work: Work, shared: Problem, tasks: Sequence[int]):
        for task in tasks[:number]:
            yield work(shared, task)
        raise Killed

    return run


def test_a_killed_call_goes_on_where_it_was(small: View, tmp_path: Path):
    folder, asked = tmp_path / "parts", []

    def counted(work: Work, shared: Problem, tasks: Sequence[int]):
        asked.extend(tasks)
        yield from HERE(work, shared, tasks)

    with pytest.raises(Killed):
        baseline_edges(small, "grnboost2", run_tasks=after(3), folder=folder)
    with pytest.raises(Killed):
        baseline_edges(small, "grnboost2", run_tasks=after(2), folder=folder)
    found = baseline_edges(small, "grnboost2", run_tasks=counted, folder=folder)
    assert asked == [5, 6, 7]
    whole = baseline_edges(small, "grnboost2", run_tasks=HERE)
    pd.testing.assert_frame_equal(found.table, whole.table, check_exact=True)
    again = baseline_edges(small, "grnboost2", k=5, run_tasks=after(0), folder=folder)
    pd.testing.assert_frame_equal(again.table, whole.table.head(5), check_exact=True)


def test_parts_of_other_settings_are_refused(small: View, stored, tmp_path: Path):
    with pytest.raises(Killed):
        baseline_edges(small, "grnboost2", run_tasks=after(1), folder=tmp_path)
    with pytest.raises(UserError, match=r"other settings \(seed was 0, now 1\); give the same again, choose another"):
        baseline_edges(small, "grnboost2", seed=1, run_tasks=HERE, folder=tmp_path)
    with pytest.raises(UserError, match="method was 'grnboost2', now 'genie3'"):
        baseline_edges(small, "genie3", run_tasks=HERE, folder=tmp_path)
    with pytest.raises(UserError, match="regulators was"):
        baseline_edges(small, "grnboost2", regulators=small.panel.names[:3], run_tasks=HERE, folder=tmp_path)
    with pytest.raises(UserError, match="view was"):
        baseline_edges(stored(8, 190), "grnboost2", run_tasks=HERE, folder=tmp_path)


def test_two_at_once_in_one_folder_are_refused(small: View, tmp_path: Path):
    with locked(tmp_path / "lock", "never"), pytest.raises(UserError, match="another process is at work there"):
        baseline_edges(small, "grnboost2", run_tasks=HERE, folder=tmp_path)


def test_long_methods_alone_have_a_folder_beside_an_output_that_is_here():
    assert parts_of("grnboost2", "out/e.parquet") == Path("out/e.parquet.parts")
    assert parts_of("grnboost2", "s3://bucket/e.parquet") is None
    assert parts_of("blend", "e.parquet") is None
