"""What is tried next, whatever has happened before; without Ray and without training."""

from dataclasses import replace
from pathlib import Path

import pytest

from grndist.sweeps.config import Sweep
from grndist.sweeps.ledger import Ledger, Look, Trial
from grndist.sweeps.plan import Plan, PopulationPlan, plan_of
from grndist.sweeps.space import at_random
from tests.sweeps.sweep_files import sweep_of


def played(sweep: Sweep, ledger: Ledger, turns: int) -> list[Trial]:
    """Trials that are worth their learning rate, as far as so many turns bring them; the last one is not ended."""
    plan, found = Plan(sweep, ledger), []
    for turn in range(turns):
        trial = plan.next()
        if trial is None:
            break
        found.append(trial)
        if turn < turns - 1:
            end(sweep, ledger, trial)
            plan.told(trial.number)
    return found


def end(sweep: Sweep, ledger: Ledger, trial: Trial) -> None:
    value = trial.settings["training.learning_rate"]
    ledger.write(replace(trial, status="finished", looks=[Look(1.0, {sweep.config.goal.name: [value]})]))


def test_at_random_the_trials_are_the_same_however_often_it_was_interrupted(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path)
    whole = [at_random(sweep.space, sweep.given, 0, number) for number in range(6)]
    ledger = Ledger(tmp_path / "ledger")
    first = played(sweep, ledger, 3)  # the third was begun and not ended
    assert Plan(sweep, ledger).left == 4
    rest = played(sweep, ledger, 99)
    assert [trial.number for trial in first + rest] == [0, 1, 2, 2, 3, 4, 5]
    assert [trial.settings for trial in first[:2] + rest] == whole
    assert Plan(sweep, ledger).next() is None


def test_tpe_goes_on_with_what_it_has_learnt(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path, search="tpe", budget={"trials": 40})
    ledger = Ledger(tmp_path / "ledger")
    played(sweep, ledger, 13)
    assert (len(ledger.trials()), Plan(sweep, ledger).left) == (13, 28)
    played(sweep, ledger, 99)
    trials = ledger.trials()
    assert [trial.number for trial in trials] == list(range(40))
    assert len({str(trial.settings) for trial in trials}) == 40  # a sampler that began anew would repeat itself
    rates = [trial.settings["training.learning_rate"] for trial in trials]
    assert sum(rates[20:]) / 20 > 2 * sum(rates[:10]) / 10  # it has learnt that more is better


def test_a_time_budget_alone_has_no_end(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path, budget={"trials": None, "hours": 1})
    plan = Plan(sweep, Ledger(tmp_path / "ledger"))
    assert plan.left is None
    assert [plan.next().number for _ in range(9)] == list(range(9))


def test_more_trials_may_be_asked_for_later(tmp_path: Path, store_path: Path):
    ledger = Ledger(tmp_path / "ledger")
    played(sweep_of(tmp_path, store_path, budget={"trials": 2}), ledger, 99)
    assert Plan(sweep_of(tmp_path, store_path, budget={"trials": 5}), ledger).left == 3


class TestPopulation:
    @pytest.fixture
    def sweep(self, tmp_path: Path, store_path: Path) -> Sweep:
        pbt = {"kind": "pbt", "looks": 3, "mutate": ["training.learning_rate"]}
        return sweep_of(tmp_path, store_path, scheduler=pbt, budget={"trials": 8})

    def turn(self, sweep: Sweep, ledger: Ledger, plan: Plan) -> Trial | None:
        """One turn of one member, worth the logarithm of what its learning rates have been."""
        trial = plan.next()
        if trial is None:
            return None
        worth = trial.settings["training.learning_rate"]
        looks = [*trial.looks, Look((len(trial.looks) + 1) / 3, {sweep.config.goal.name: [worth]})]
        status = "finished" if len(looks) == 3 else "running"
        ledger.write(replace(trial, looks=looks, donor=None, status=status))
        plan.told(trial.number)
        return trial

    def test_all_take_turns_and_the_worst_go_on_from_the_best(self, tmp_path: Path, sweep: Sweep):
        ledger = Ledger(tmp_path / "ledger")
        plan = plan_of(sweep, ledger)
        assert isinstance(plan, PopulationPlan)
        assert plan.left == 24
        first = [self.turn(sweep, ledger, plan) for _ in range(8)]
        assert [trial.number for trial in first] == list(range(8))
        assert all(trial.donor is None for trial in first)
        order = sorted(first, key=lambda trial: trial.settings["training.learning_rate"])
        worst, best = {trial.number for trial in order[:2]}, {trial.number for trial in order[-2:]}
        second = [self.turn(sweep, ledger, plan) for _ in range(8)]
        assert {trial.number for trial in second if trial.donor is not None} == worst
        for trial in second:
            if trial.donor is None:
                assert trial.settings == first[trial.number].settings
                continue
            assert trial.donor in best
            given = first[trial.donor].settings
            assert trial.settings["model.embedding"] == given["model.embedding"]
            assert trial.settings["training.learning_rate"] != given["training.learning_rate"]
        while self.turn(sweep, ledger, plan):
            pass
        assert all(trial.status == "finished" for trial in ledger.trials())
        assert plan.left == 0

    def test_an_interrupted_population_goes_on_as_it_would_have(self, tmp_path: Path, sweep: Sweep):
        whole, divided = Ledger(tmp_path / "whole"), Ledger(tmp_path / "divided")
        plan = plan_of(sweep, whole)
        while self.turn(sweep, whole, plan):
            pass
        for turns in (5, 7, 99):
            plan = plan_of(sweep, divided)
            for _ in range(turns):
                if self.turn(sweep, divided, plan) is None:
                    break
            plan.next()  # taken, and killed
        assert [trial.settings for trial in divided.trials()] == [trial.settings for trial in whole.trials()]

    def test_members_that_are_busy_are_waited_for(self, tmp_path: Path, sweep: Sweep):
        plan = plan_of(sweep, Ledger(tmp_path / "ledger"))
        taken = [plan.next() for _ in range(8)]
        assert len({trial.number for trial in taken}) == 8
        assert plan.next() is None
        assert plan.may_wait
