"""Trials in this process, without Ray: one by one, and several trained together."""

from pathlib import Path

import pytest

from grndist.sweeps.config import Sweep
from grndist.sweeps.ledger import Ledger, Trial
from grndist.sweeps.plan import Plan
from grndist.sweeps.trial import Order, are_alike, gain_together, run_together, run_trial
from tests.sweeps.sweep_files import sweep_of

VAE = {
    "preset": "dazzle",
    "model": {"width": 4, "sparse_delay": 1},
    "training": {"steps": 8, "epochs": None, "cells_per_step": 60, "checkpoint_every": 4},
    "tracking": {"kind": "none"},
}


def sweep_of_vaes(folder: Path, store: Path, **changes: object) -> Sweep:
    space = {"model.alpha": {"grid": [1.0, 10.0, 100.0]}}
    folder.mkdir()
    return sweep_of(folder, store, run=VAE, **{"space": space, "search": "grid", "trial": {"together": 8}} | changes)


def begun(sweep: Sweep) -> tuple[Order, list[Trial]]:
    order, trials = Order(sweep), []
    plan = Plan(sweep, order.ledger)
    while (trial := plan.next()) is not None:
        trials.append(trial)
    return order, trials


def test_trials_trained_together_are_worth_what_they_are_worth_one_by_one(tmp_path: Path, store_path: Path):
    order, trials = begun(sweep_of_vaes(tmp_path / "together", store_path, replicates=2))
    alone, _ = begun(sweep_of_vaes(tmp_path / "alone", store_path, replicates=2))
    assert are_alike(order, trials)
    looks = []
    run_together(order, [trial.number for trial in trials], looks.append)
    for trial in trials:
        run_trial(alone, trial.number, lambda look: None)
    found, wanted = order.ledger.trials(), alone.ledger.trials()
    assert len(looks) == len(found) == 3
    for one, other in zip(found, wanted, strict=True):
        assert (one.status, one.settings) == ("finished", other.settings)
        for name, values in other.values.items():
            assert one.values[name] == pytest.approx(values, rel=1e-4)
    run_together(order, [trial.number for trial in trials], looks.append)  # nothing is done again
    assert [repr(trial) for trial in order.ledger.trials()] == [repr(trial) for trial in found]


def test_one_that_fails_leaves_the_others_alone(tmp_path: Path, store_path: Path):
    space = {"training.learning_rate": {"grid": [1e-3, 1e38]}}
    order, trials = begun(sweep_of_vaes(tmp_path / "s", store_path, space=space))
    run_together(order, [trial.number for trial in trials], lambda look: None)
    assert [trial.status for trial in order.ledger.trials()] == ["finished", "failed"]
    assert "the loss is" in order.ledger.trial(1).error


def test_what_goes_together(tmp_path: Path, store_path: Path):
    order, trials = begun(sweep_of_vaes(tmp_path / "s", store_path))
    assert are_alike(order, trials[:2])
    assert gain_together(order, trials)
    small, trials = begun(sweep_of_vaes(tmp_path / "unasked", store_path, trial={"together": None}))
    assert not gain_together(small, trials)  # 12 genes
    space = {"model.sparse_delay": {"grid": [1, 2]}}
    shapes, trials = begun(sweep_of_vaes(tmp_path / "shapes", store_path, space=space))
    assert not are_alike(shapes, trials)
    watched, trials = begun(sweep_of_vaes(tmp_path / "asha", store_path, scheduler={"kind": "asha"}))
    assert not are_alike(watched, trials)
    run_trial(order, 0, lambda look: None)
    assert not are_alike(order, order.ledger.trials())


def test_those_that_are_not_alike_wait_for_their_turn(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path, budget={"trials": 6})
    plan = Plan(sweep, Ledger(tmp_path / "ledger"))
    first = plan.next()
    assert first is not None
    even = plan.next_like(first, 2, lambda trial: trial.number % 2 == 0, lambda trials: True)
    assert [trial.number for trial in even] == [0, 2]
    second = plan.next()
    assert second is not None
    alone = plan.next_like(second, 3, lambda trial: True, lambda trials: False)
    assert [trial.number for trial in alone] == [1]
    rest = [plan.next() for _ in range(4)]
    assert [trial.number if trial else None for trial in rest] == [3, 4, 5, None]
    assert plan.left == 0
