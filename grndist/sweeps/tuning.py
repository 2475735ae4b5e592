"""Ray Tune: which trial runs where and when, and which are stopped early. What is tried is the plan's to say.

Every trial is one process, reused by the next. Tune's own checkpoints and logs are not used: the ledger has everything,
and a sweep that goes on is a new run of Tune over the trials that are left.
"""

import logging
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from grndist.errors import UserError
from grndist.sweeps.config import Sweep
from grndist.sweeps.ledger import Look, Trial
from grndist.sweeps.plan import Plan
from grndist.sweeps.trial import Order, are_alike, gain_together, run_together

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the sweep's
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",  # a trial that is to end does not first train up to its next look
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials stay in the folder where the sweep was started
    "RAY_AIR_NEW_OUTPUT": "0",
}
CHATTY = ("ray.tune", "ray.train")
NUMBERS, LOOK = "numbers", "look"
TOGETHER = 8  # trainings of one process, where stacking pays; its gain was measured with so many

Heard = Callable[[int, bool], None]  # a trial's number, and whether it is over
Asked = Callable[[], bool]  # whether somebody wants everything to stop


def tuned(order: Order, plan: Plan, heard: Heard, seconds: float | None, is_asked_to_stop: Asked) -> None:
    """Run all trials that are left, as many at a time as there is room for, or as many as `seconds` allow.

    Where somebody asks it to stop, trials that run end at once, and stay unfinished in the ledger.

    Raises:
        UserError: the cluster has no room for one trial.
    """
    sweep = order.sweep
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    resources = _resources(sweep)
    with tempfile.TemporaryDirectory(prefix="grndist-tune-") as aside:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(turn, order=order), resources),
            tune_config=tune.TuneConfig(
                metric=sweep.config.goal.name,
                mode=sweep.config.goal.direction,
                search_alg=_Next(order, plan, is_asked_to_stop),
                scheduler=scheduler(sweep, order.ledger.trials()),
                num_samples=-1 if plan.left is None else plan.left,
                max_concurrent_trials=concurrent(sweep),
                time_budget_s=seconds,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.config.name,
                storage_path=aside,
                verbose=0,
                stop=_Asked(is_asked_to_stop),
                callbacks=[_Heard(heard)],
                failure_config=tune.FailureConfig(max_failures=sweep.config.trial.max_failures),
            ),
        ).fit()


def concurrent(sweep: Sweep) -> int:
    """How many trials run at a time: as many as the nodes have room for, or as the settings say.

    Raises:
        UserError: there is no room for one.
    """
    workers, trial = sweep.base.workers, sweep.config.trial
    if workers is not None:
        needed = {"CPU": workers.cpus_per_worker * workers.max, "GPU": workers.gpus_per_worker * workers.max}
        rooms = [ray.cluster_resources()]
    else:
        needed = {"CPU": trial.cpus, "GPU": trial.gpus}
        rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(min(there.get(what, 0) / much for what, much in needed.items() if much > 0)) for there in rooms)
    if room < 1:
        said = ", ".join(f"{much:g} {what}s" for what, much in needed.items() if much > 0)
        raise UserError(
            f"a trial needs {said}, and the cluster has {int(sum(there.get('CPU', 0) for there in rooms))} CPUs and "
            f"{int(sum(there.get('GPU', 0) for there in rooms))} GPUs; lower trial.cpus or trial.gpus (or the run's "
            "workers), or give the address of a larger one"
        )
    return min(room, trial.concurrent or room)


def _resources(sweep: Sweep) -> dict[str, float]:
    if sweep.base.workers is not None:
        return {"node:__internal_head__": 0.001}  # the workers have places of their own; this one only follows them
    trial = sweep.config.trial
    return {"CPU": trial.cpus} | ({"GPU": trial.gpus} if trial.gpus else {})


def turn(config: dict[str, Any], order: Order) -> None:
    """What Tune calls in the process of a trial, or of several that are trained together."""
    logging.getLogger("grndist").setLevel(logging.WARNING)
    goal, looks = order.sweep.config.goal, order.sweep.config.looks

    def report(look: Look) -> None:
        tune.report({goal.name: mean(look, goal.name), LOOK: round(look.part * looks)})

    run_together(order, config[NUMBERS], report)
    if any(order.ledger.trial(number).status == "failed" for number in config[NUMBERS]):
        tune.report({goal.name: -math.inf if goal.direction == "max" else math.inf, LOOK: looks})


def mean(look: Look, objective: str) -> float:
    """Of the replicates."""
    values = look.values[objective]
    return sum(values) / len(values)


class _NotKept:
    """Of which nothing is written with Tune's own state, which is never read: it may hold what cannot be pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Next(_NotKept, Searcher):
    """What Tune asks for settings: the plan's trials, by number; several where they are to be trained together."""

    def __init__(self, order: Order, plan: Plan, is_asked_to_stop: Asked):
        super().__init__()
        self._order, self._plan, self._is_asked_to_stop = order, plan, is_asked_to_stop
        self._room = concurrent(order.sweep)
        self._numbers: dict[str, list[int]] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        trial = self._plan.next()
        if trial is None:
            return None if self._plan.may_wait else Searcher.FINISHED
        self._numbers[trial_id] = [one.number for one in self._together(trial)]
        return {NUMBERS: self._numbers[trial_id]}

    def _together(self, first: Trial) -> list[Trial]:
        """It, and others that its process trains with it; every process there is room for gets its share."""
        config, left = self._order.sweep.config, self._plan.left
        most = (config.trial.together or TOGETHER) // config.replicates
        if left is not None:
            most = min(most, math.ceil((left + 1) / self._room))
        if most < 2 or config.looks > 1 or config.search == "tpe":  # a scheduler looks at each, TPE learns from each
            return [first]
        order = self._order
        return self._plan.next_like(
            first, most, lambda other: are_alike(order, [first, other]), lambda trials: gain_together(order, trials)
        )

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if self._is_asked_to_stop():
            return
        for number in self._numbers[trial_id]:
            if error:
                self._plan.ledger.end(number, "failed", "its process was lost too often (trial.max_failures)")
            self._plan.told(number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: Tune's own restoring is not used."""


class _Asked(_NotKept, tune.Stopper):
    """Ends everything where somebody asks for it."""

    def __init__(self, is_asked_to_stop: Asked):
        self._is_asked_to_stop = is_asked_to_stop

    def __call__(self, trial_id: str, result: dict) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._is_asked_to_stop()


class _Heard(_NotKept, tune.Callback):
    """Tells the sweep what Tune hears of its trials."""

    def __init__(self, heard: Heard):
        self._heard = heard

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._tell(trial, is_over=False)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._tell(trial, is_over=False)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._tell(trial, is_over=True)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._tell(trial, is_over=True)

    def _tell(self, trial: Any, is_over: bool) -> None:
        for number in trial.config[NUMBERS]:
            self._heard(number, is_over)


def scheduler(sweep: Sweep, before: Sequence[Trial]) -> TrialScheduler:
    """Tune's, which is told of the looks of trials that have ended before."""
    config, goal = sweep.config.scheduler, sweep.config.goal
    if config.kind == "asha":
        asha = AsyncHyperBandScheduler(
            time_attr=LOOK, max_t=config.looks, grace_period=config.grace, reduction_factor=config.reduction
        )
        sign = 1.0 if goal.direction == "max" else -1.0
        (bracket,) = asha._brackets
        for trial in before:
            for look in trial.looks if trial.is_over else []:
                known = SimpleNamespace(trial_id=f"before-{trial.number}")
                bracket.on_result(known, round(look.part * config.looks), sign * mean(look, goal.name))
        return asha
    if config.kind == "median":
        return MedianStoppingRule(time_attr=LOOK, grace_period=config.grace, min_samples_required=3)
    return FIFOScheduler()
