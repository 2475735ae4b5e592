"""What is trained next: trials that were begun and not ended first, then new ones; in a population, all in turn."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from grndist.sweeps.config import Sweep
from grndist.sweeps.ledger import Ledger, Trial
from grndist.sweeps.population import behind, moved_on
from grndist.sweeps.space import Parameter, Value, chosen

PASSED_OVER = 16  # trials, in search of some that can be trained with another


class Plan:
    """The trials of a sweep that are still to be run, one call of `next` for each process's turn."""

    def __init__(self, sweep: Sweep, ledger: Ledger):
        self.sweep, self.ledger = sweep, ledger
        trials = ledger.trials()
        self._waiting = [trial for trial in trials if not trial.is_over]
        self._next = 1 + max((trial.number for trial in trials), default=-1)
        self._sampler = Sampler(sweep, trials) if sweep.config.search == "tpe" else None

    @property
    def left(self) -> int | None:
        """How many turns there are still; None: as many as the time allows."""
        n = self.sweep.n_trials
        return None if n is None else len(self._waiting) + max(n - self._next, 0)

    def next(self) -> Trial | None:
        """The next trial, written down; None: there is none."""
        if self._waiting:
            return self._waiting.pop(0)
        if self.sweep.n_trials is not None and self._next >= self.sweep.n_trials:
            return None
        number = self._next
        self._next += 1
        trial = Trial(number, self._settings(number))
        self.ledger.write(trial)
        return trial

    def next_like(
        self, first: Trial, n: int, is_like: Callable[[Trial], bool], is_worth_it: Callable[[list[Trial]], bool]
    ) -> list[Trial]:
        """`first` and following trials that are like it, n in all at most, or it alone; others wait for their turn."""
        chosen: list[Trial] = [first]
        passed: list[Trial] = []
        while len(chosen) < n and len(passed) < PASSED_OVER and (trial := self.next()) is not None:
            (chosen if is_like(trial) else passed).append(trial)
        if len(chosen) > 1 and not is_worth_it(chosen):
            passed, chosen = [*passed, *chosen[1:]], [first]
        self._waiting = sorted([*passed, *self._waiting], key=lambda trial: trial.number)
        return chosen

    def told(self, number: int) -> None:
        """The turn of a trial is over, and the trial has ended."""
        self.ledger.end(number, "stopped")  # unless it has finished, or failed, by its own account
        if self._sampler is not None:
            self._sampler.tell(self.ledger.trial(number))

    @property
    def may_wait(self) -> bool:
        """Whether there may be something to do later where there is nothing now."""
        return False

    def _settings(self, number: int) -> dict[str, Any]:
        if self._sampler is not None:
            return self._sampler.ask(number)
        return self.sweep.at_random(number)


class PopulationPlan(Plan):
    """The members of a population, each of whose turns ends with its next look."""

    def __init__(self, sweep: Sweep, ledger: Ledger):
        super().__init__(sweep, ledger)
        self._busy: set[int] = set()
        while super().next() is not None:  # all of them exist from the beginning
            pass

    @property
    def left(self) -> int:
        """How many looks there are still."""
        return sum(self.sweep.config.looks - len(trial.looks) for trial in self.ledger.trials() if not trial.is_over)

    def next(self) -> Trial | None:
        """The member that lags behind most, with a donor if it is among the worst."""
        trials = self.ledger.trials()
        trial = behind(trials, self._busy)
        if trial is None:
            return None
        trial = moved_on(self.sweep, trial, trials)
        self.ledger.write(trial)
        self._busy.add(trial.number)
        return trial

    def told(self, number: int) -> None:
        """The turn of a member is over."""
        self._busy.discard(number)

    @property
    def may_wait(self) -> bool:
        """Members that are busy will want another turn."""
        return bool(self._busy)


def plan_of(sweep: Sweep, ledger: Ledger) -> Plan:
    """What is left of a sweep."""
    return (PopulationPlan if sweep.config.scheduler.kind == "pbt" else Plan)(sweep, ledger)


class Sampler:
    """Optuna's tree-structured Parzen estimator, told of every trial that is known (Bergstra et al. 2011)."""

    def __init__(self, sweep: Sweep, trials: Sequence[Trial]):
        import optuna

        logging.getLogger("optuna").setLevel(logging.WARNING)
        self._sweep, self._optuna = sweep, optuna
        goal = sweep.config.goal
        # a sampler that goes on must not draw what it drew before
        sampler = optuna.samplers.TPESampler(seed=sweep.config.seed + 7919 * len(trials), constant_liar=True)
        self._study = optuna.create_study(
            sampler=sampler, direction="maximize" if goal.direction == "max" else "minimize"
        )
        self._asked: dict[int, Any] = {}
        for trial in trials:
            self._ask(trial.number, given=trial.settings)
            if trial.is_over:
                self.tell(trial)

    def ask(self, number: int) -> dict[str, Any]:
        """Settings for a new trial."""
        return self._ask(number, given=None)

    def tell(self, trial: Trial) -> None:
        """What came of a trial; one that failed says only that."""
        asked = self._asked.pop(trial.number)
        value, states = trial.mean(self._sweep.config.goal.name), self._optuna.trial.TrialState
        is_known = trial.status != "failed" and math.isfinite(value)
        self._study.tell(asked, value if is_known else None, state=states.COMPLETE if is_known else states.FAIL)

    def _ask(self, number: int, given: dict[str, Any] | None) -> dict[str, Any]:
        if given is not None:
            self._study.enqueue_trial(given)
        asked = self._asked[number] = self._study.ask()
        return chosen(self._sweep.space, self._sweep.given, lambda key, parameter: _suggested(asked, key, parameter))


def _suggested(asked: Any, key: str, parameter: Parameter) -> Value:
    value: Value
    if parameter.values is not None:
        value = asked.suggest_categorical(key, parameter.values)
    else:
        assert parameter.bounds is not None
        low, high = parameter.bounds
        is_log = parameter.kind.startswith("log")
        suggest = asked.suggest_int if parameter.is_whole else asked.suggest_float
        value = suggest(
            key, int(low) if parameter.is_whole else low, int(high) if parameter.is_whole else high, log=is_log
        )
    return value
