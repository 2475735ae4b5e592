"""Several runs trained together in this process: replicates with other seeds, trials with other rates and weights.

Each leaves the run directory that `train_run` would have left, and can be resumed by it. Every run keeps the batches
and random numbers of its own seed: reading them is 2 to 4 % of a step, so that sharing them would gain little, and a
seed would no longer mean the same run everywhere.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import cast

from grndist import models
from grndist.config import Tree
from grndist.data.facts import in_one_task
from grndist.data.stream.batch import Batch
from grndist.runs import augmentation
from grndist.runs.config import RunConfig
from grndist.runs.folder import metrics_file, tracking
from grndist.runs.learning import Learning
from grndist.runs.outcome import logging_outcome
from grndist.runs.steps import News, Stepping, keeping
from grndist.runs.stopping import collected
from grndist.runs.train import Begun, RunSummary, begun, cells_of, finished, interrupted, news_bar, prepared, summary_of
from grndist.runs.workplace import RunError
from grndist.storage import joined
from grndist.tracking import Tracker
from grndist.training import checkpoint
from grndist.training.loop import State, TrainingError
from grndist.training.together import Member, train_together
from grndist.workers import ALONE

MAY_DIFFER = {"name", "preset", "runs", "tracking"} | {
    f"training.{name}"
    for name in (
        "seed", "learning_rate", "adjacency_learning_rate", "weight_decay", "betas", "rate_over_time", "warmup",
        "halve_at_steps", "halve_groups", "checkpoint_every", "log_every", "validate_every", "patience",
    )
}  # fmt: skip

logger = logging.getLogger(__name__)


def can_pack(configs: Sequence[RunConfig]) -> str:
    """Why these runs cannot be trained together, in words; empty where they can."""
    if len({joined(config.runs, config.name) for config in configs}) < max(len(configs), 2):
        return "it takes two runs or more, with directories of their own"
    reason = _difference(configs) or models.not_stackable([config.model for config in configs])
    return reason or _of_each(configs[0])


def pays(configs: Sequence[RunConfig]) -> bool:
    """Whether these runs, which can be trained together, should be: where a gain of more than 1.3 was measured."""
    first = configs[0]
    return models.stacking_pays(first.model, len(configs), _n_genes(first), first.training.cells_per_step)


def _of_each(config: RunConfig) -> str:
    """Why such runs cannot be trained together, however alike they are."""
    training = config.training
    reasons = {
        "workers train one run at a time": config.workers is not None,
        f"training.device={training.device} has no stacked form": training.device != "cpu",
        f"training.sampling={training.sampling}: a step may have other numbers of cells with another seed": (
            training.sampling != "shuffled"
        ),
        f"training.genes_per_step={training.genes_per_step}: a step has other genes with another seed": (
            training.genes_per_step is not None and training.genes_per_step < _n_genes(config)
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _difference(configs: Sequence[RunConfig]) -> str:
    """A setting, none of the model's own, that must be the same for all and is not."""
    first, *others = (dict(_flat(config.model_dump(mode="json"))) for config in configs)
    for other in others:
        for key in sorted(first.keys() | other.keys()):
            part = key.partition(".")[0]
            may = key in MAY_DIFFER or part in MAY_DIFFER or (part == "model" and key != "model.kind")
            if not may and other.get(key) != first.get(key):
                return f"{key} is {first.get(key)} and {other.get(key)}"
    return ""


def train_packed(
    configs: Sequence[RunConfig], resume: bool = False, overwrite: bool = False
) -> list[RunSummary | TrainingError]:
    """Train runs together; one result for each: what `train_run` returns or, where the loss is not finite, raises.

    Args:
        configs: runs for which `can_pack` finds no reason against it.
        resume: go on from the last checkpoint of each; those that stand at the same step go together.
        overwrite: replace runs that are there.

    Raises:
        RunError: they cannot be trained together.
        UserError: a store, run directory or setting does not allow it.
        Interrupted: Ctrl-C or SIGTERM; checkpoints of all are left.
    """
    reason = can_pack(configs)
    if reason:
        raise RunError(f"these runs cannot be trained together: {reason}; train them one by one")
    started = time.monotonic()
    with ExitStack() as every:
        own = [every.enter_context(ExitStack()) for _ in configs]
        runs = [
            contexts.enter_context(begun(config, resume, overwrite, is_here=True))
            for contexts, config in zip(own, configs, strict=True)
        ]
        packed = [
            _Packed(run, prepared(run, overwrite, in_one_task), contexts, started)
            for run, contexts in zip(runs, own, strict=True)
        ]
        for one in packed:
            one.open()
        for one in packed:
            if one.learns is None:
                one.conclude()
        _train([one for one in packed if one.learns is not None])
    return [one.result for one in packed if one.result is not None]


@dataclass
class _Packed:
    """One of the runs."""

    run: Begun
    learns: Learning | None  # None: it has no step left
    contexts: ExitStack  # that hold its directory and its tracking
    started: float
    result: RunSummary | TrainingError | None = None

    def open(self) -> None:
        """Start to track."""
        self.log_outcome = self.contexts.enter_context(logging_outcome(self.run.place))
        self.tracker: Tracker = self.contexts.enter_context(
            tracking(self.run.place.folder, self.run.config, self.run.view)
        )

    def begin(self, show: Callable[[News], None], wants_stop: Callable[[int], bool]) -> Member:
        """Make ready for the first step."""
        run, learns = self.run, self.learns
        assert learns is not None
        write = self.contexts.enter_context(metrics_file(run.place.folder, learns.state.step))
        keeper = self.contexts.enter_context(keeping(run.place, run.config, run.view, learns))
        state, logs = learns.state, (write, self.tracker.log_metrics)
        self.stepping = Stepping(
            run.config, learns, ALONE, keeper.save, logs, show, lambda: wants_stop(state.step), self.started
        )
        batch_at = cast("Callable[[int], Batch]", learns.batch_at)
        return Member(state, batch_at, self._after_step, self._fail)

    def conclude(self) -> None:
        """Close its directory and its tracking, with the summary of what was done."""
        summary, folder = self._summary(), self.run.place.folder
        final = checkpoint.latest(folder / "checkpoints")
        self.log_outcome(self.tracker, final)
        reason = augmentation.reason(folder)
        self.contexts.close()
        self.result = replace(summary, augmentation=reason, tracking=self.tracker.where())

    def _after_step(self, state: State, batch: Batch, losses: dict[str, float]) -> bool:
        assert self.learns is not None
        over = self.stepping.after_step(state, batch, losses)
        if not over and state.step < self.learns.steps:
            return False
        self.stepping.save(state)
        if not self.stepping.stopped:
            self.conclude()
        return True

    def _fail(self, error: TrainingError) -> None:
        logger.warning("%s: %s", self.run.place.run, error)
        self.result = error
        self.contexts.__exit__(type(error), error, error.__traceback__)

    def _summary(self) -> RunSummary:
        final = checkpoint.latest(self.run.place.folder / "checkpoints")
        if self.learns is None:
            return finished(self.run, final)
        seconds = time.monotonic() - self.started
        return summary_of(self.run, final, seconds, self.stepping.cells / seconds, self.stepping.losses)


def _train(packed: Sequence[_Packed]) -> None:
    """Train until every run is at its end, has failed or was stopped; those that stand at the same step together.

    Raises:
        Interrupted: they were stopped.
    """
    for _, group in groupby(sorted(packed, key=_step_of), key=_step_of):
        _train_from_one_step(list(group))


def _train_from_one_step(packed: Sequence[_Packed]) -> None:
    first, steps = _step_of(packed[0]), _steps_of(packed[0])
    with collected() as signals, news_bar(first, steps) as show:

        @lru_cache(maxsize=1)
        def wants_stop(step: int) -> bool:
            return bool(signals)  # asked once a step, so that all stop at the same

        train_together([one.begin(show, wants_stop) for one in packed], steps)
    stopped = [one for one in packed if one.result is None]
    if stopped:
        run = stopped[0].run.place.run
        others = f" and those of {len(stopped) - 1} more runs" if len(stopped) > 1 else ""
        final = checkpoint.latest(stopped[0].run.place.folder / "checkpoints")
        path = joined(run, "checkpoints", final.name) + others
        raise interrupted(_step_of(stopped[0]), steps, path, signals[0])


def _step_of(one: _Packed) -> int:
    return one.learns.state.step if one.learns else 0


def _steps_of(one: _Packed) -> int:
    return one.learns.steps if one.learns else 0


def _n_genes(config: RunConfig) -> int:
    return cells_of(config)[0].n_genes


def _flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The settings by their `key.path`."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
