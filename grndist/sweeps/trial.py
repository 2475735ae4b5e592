"""One trial, in the process that runs it: train its replicates, look at what they are worth, write it down."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from grndist.config import branch, merge, read_tree
from grndist.errors import UserError
from grndist.files import written_aside
from grndist.launch.anywhere import folder_of, go_on, is_begun
from grndist.runs import RunConfig
from grndist.runs.packed import can_pack, pays, train_packed
from grndist.sweeps.config import Sweep
from grndist.sweeps.ledger import Ledger, Look, Trial, Values
from grndist.sweeps.objectives import measured
from grndist.sweeps.space import Settings
from grndist.training import checkpoint
from grndist.training.loop import TrainingError

INHERITED = "inherited.json"  # in the run directory of a member of a population: where its weights come from

Report = Callable[[Look], None]  # may not return, where the trial is to end


@dataclass(frozen=True)
class Order:
    """What the process of a trial has to know of the sweep."""

    sweep: Sweep
    parent: str = ""  # the sweep's run in MLflow

    @property
    def ledger(self) -> Ledger:
        """The sweep's folder."""
        return Ledger(self.sweep.folder)

    def configs(self, settings: Settings, folder: Path, seeds: Sequence[int], **tags: str) -> list[RunConfig]:
        """A run for each seed."""
        return [self.sweep.run(settings, folder, seed, self.parent, replicate=str(seed), **tags) for seed in seeds]

    def replicates(self, trial: Trial) -> list[RunConfig]:
        """The runs of a trial."""
        first = self.sweep.base.training.seed
        seeds = range(first, first + self.sweep.config.replicates)
        return self.configs(trial.settings, self.ledger.runs(trial.number), seeds, trial=str(trial.number))


def run_trial(order: Order, number: int, report: Report, is_trained: bool = False) -> None:
    """Go on with a trial where it stands, and tell of every look; what its settings do not allow is its result."""
    ledger = order.ledger
    trial = ledger.trial(number)
    try:
        configs = order.replicates(trial)
        if trial.donor is not None:
            inherit(order.replicates(ledger.trial(trial.donor)), configs, trial.settings, len(trial.looks))
        looks, is_population = order.sweep.config.looks, order.sweep.config.scheduler.kind == "pbt"
        for done in range(len(trial.looks), len(trial.looks) + 1 if is_population else looks):
            part = (done + 1) / looks
            if not is_trained:
                train(configs, part, order.sweep.config.trial.together)
            values = worth(order, configs)
            trial = replace(trial, looks=[*trial.looks, Look(part, values)], donor=None)
            if part == 1:
                trial = replace(trial, status="finished", ended=time.time())
            if part == 1 and not is_population:
                _tidy(configs)
            ledger.write(trial)
            report(trial.looks[-1])
    except UserError as error:  # a loss that is not finite, say; the sweep goes on with other settings
        ledger.end(number, "failed", str(error))


def run_together(order: Order, numbers: Sequence[int], report: Report) -> None:
    """Train several whole trials at once (`are_alike`) where none was begun; what comes of each is the same.

    A trial with a replicate that fails has failed, and leaves the others alone.
    """
    runs = {number: order.replicates(order.ledger.trial(number)) for number in numbers}
    every = [config for configs in runs.values() for config in configs]
    errors: dict[int, list[TrainingError]] = {}
    if len(numbers) > 1 and not any(is_begun(config) for config in every):
        results = iter(train_packed(every, overwrite=any(folder_of(config).exists() for config in every)))
        for number, configs in runs.items():
            of_trial = [next(results) for _ in configs]
            errors[number] = [result for result in of_trial if isinstance(result, TrainingError)]
    for number in numbers:
        if errors.get(number):
            order.ledger.end(number, "failed", str(errors[number][0]))
        else:
            run_trial(order, number, report, is_trained=number in errors)


def are_alike(order: Order, trials: Sequence[Trial]) -> bool:
    """Whether these trials can be trained together: of one shape, none begun, and no scheduler wants looks at them."""
    sweep = order.sweep
    if sweep.config.looks > 1 or sweep.base.workers is not None:
        return False
    try:
        configs = _every(order, trials)
    except UserError:  # settings that make no run are the trial's own failure
        return False
    return not any(is_begun(config) for config in configs) and not can_pack(configs)


def gain_together(order: Order, trials: Sequence[Trial]) -> bool:
    """Whether trials that can be trained in one process should be: where it is asked for, or a gain was measured."""
    return order.sweep.config.trial.together is not None or pays(_every(order, trials))


def _every(order: Order, trials: Sequence[Trial]) -> list[RunConfig]:
    return [config for trial in trials for config in order.replicates(trial)]


def inherit(donors: Sequence[RunConfig], heirs: Sequence[RunConfig], settings: Settings, looks: int) -> None:
    """Put the donors' last checkpoints and their settings, with the heirs' own, into the heirs' run directories.

    An heir that has inherited already, and was interrupted then, is left alone.
    """
    for donor, heir in zip(donors, heirs, strict=True):
        folder, mark = folder_of(heir), {"from": donor.runs, "looks": looks}
        if (folder / INHERITED).is_file() and json.loads((folder / INHERITED).read_text()) == mark:
            continue
        last = checkpoint.latest(folder_of(donor) / "checkpoints")
        with written_aside(folder / "checkpoints", overwrite=True) as aside:
            shutil.copytree(last, aside / last.name)
        own = {"name": heir.name, "runs": heir.runs, "tracking": heir.tracking.model_dump(mode="json")}
        tree = merge(
            read_tree(folder_of(donor) / "config.yaml"), *(branch(key, value) for key, value in settings.items()), own
        )
        with written_aside(folder / "config.yaml", overwrite=True) as file:
            file.write_text(yaml.safe_dump(tree, sort_keys=False))
        with written_aside(folder / INHERITED, overwrite=True) as file:
            file.write_text(json.dumps(mark))


def worth(order: Order, configs: Sequence[RunConfig]) -> Values:
    """What the networks of trained runs are worth, by every objective."""
    return measured(order.sweep.config.objectives, [f"{config.runs}/{config.name}" for config in configs])


def train(configs: Sequence[RunConfig], part: float, together: int | None = None) -> None:
    """Train runs up to a part of their steps; as many as `together` at once, None: all where that pays."""
    fresh = part == 1 and len(configs) > 1 and not any(is_begun(config) for config in configs)
    if fresh and not can_pack(configs) and (pays(configs) if together is None else together >= len(configs)):
        for result in train_packed(configs, overwrite=any(folder_of(config).exists() for config in configs)):
            if isinstance(result, TrainingError):
                raise result
        return
    for config in configs:
        go_on(config, part)


def _tidy(configs: Sequence[RunConfig]) -> None:
    """Of a finished run only the last checkpoint stays, without what only more training needs."""
    for config in configs:
        *older, last = sorted((folder_of(config) / "checkpoints").glob("step-*"))
        for folder in older:
            shutil.rmtree(folder)
        (last / "optimizer.safetensors").unlink(missing_ok=True)
