"""The winner on fresh seeds, beside the run's own settings: the best of many trials is also the luckiest of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ray

from grndist.launch.cluster import own_error
from grndist.progress import track
from grndist.runs import RunConfig
from grndist.sweeps.ledger import Trial, Values
from grndist.sweeps.objectives import measured
from grndist.sweeps.space import Settings
from grndist.sweeps.trial import Order, train

FRESH = 1000  # seeds of replicates are below this, after the run's own
KEPT = "confirmed.json"


@dataclass(frozen=True)
class Confirmation:
    """Values of every objective on fresh seeds: of the best trial's settings and of the run's own."""

    number: int  # of the trial
    seeds: list[int]
    best: Values
    default: Values


def confirm(order: Order, best: Trial) -> Confirmation:
    """Train the best settings and the run's own on fresh seeds, all at once as far as there is room; or what is known.

    Raises:
        UserError: one of the trainings fails.
    """
    ledger, sweep = order.ledger, order.sweep
    first = sweep.base.training.seed + FRESH
    seeds = list(range(first, first + sweep.config.confirm))
    before = ledger.read(KEPT)
    if before is not None and (before["number"], before["seeds"]) == (best.number, seeds):
        return Confirmation(**before)
    folder = ledger.folder / "confirm"
    runs = {
        "best": _runs(order, best.settings, folder / f"trial-{best.number:04d}", seeds),
        "default": _runs(order, {}, folder / "default", seeds),
    }
    _train([config for configs in runs.values() for config in configs], order)
    found = {
        who: measured(sweep.config.objectives, [str(Path(config.runs) / config.name) for config in configs])
        for who, configs in runs.items()
    }
    confirmation = Confirmation(best.number, seeds, found["best"], found["default"])
    ledger.keep(KEPT, json.loads(json.dumps(asdict(confirmation))))
    return confirmation


def _runs(order: Order, settings: Settings, folder: Path, seeds: Sequence[int]) -> list[RunConfig]:
    return order.configs(settings, folder, seeds, trial=folder.name)


def _train(configs: Sequence[RunConfig], order: Order) -> None:
    """Each as a task; where several workers train one run, one after the other."""
    if order.sweep.base.workers is not None:
        for config in track(configs, "fresh seeds", len(configs)):
            train([config], 1.0)
        return
    trial = order.sweep.config.trial
    task = ray.remote(num_cpus=trial.cpus, num_gpus=trial.gpus, max_retries=trial.max_failures)(train)
    tasks = [task.remote([config], 1.0) for config in configs]
    with own_error():
        for one in track(tasks, "fresh seeds", len(tasks)):
            ray.get(one)
