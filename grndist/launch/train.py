"""Training on the workers of a Ray cluster, through Ray Train.

This process holds the run directory, tracks the run and shows how it goes. The workers take the steps; the first of
them writes checkpoints and numbers. When workers are lost, or room for more is found, Ray starts all of them again, and
they go on from the last checkpoint.

Ray Train's own checkpoints are not used: those of the run directory are what `--resume` in one process and `infer`
read, too.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grndist import models
from grndist.errors import UserError
from grndist.launch.board import Board
from grndist.launch.cluster import cluster_of
from grndist.launch.following import Following
from grndist.launch.moments import pass_on_ray
from grndist.launch.ray_train import Fit, trainer
from grndist.runs import augmentation
from grndist.runs.config import RunConfig, WorkersConfig
from grndist.runs.folder import tracking
from grndist.runs.learning import steps_of
from grndist.runs.outcome import logging_outcome
from grndist.runs.refusals import refuse_unfit
from grndist.runs.stopping import collected
from grndist.runs.train import (
    Begun,
    RunSummary,
    begun,
    finished,
    interrupted,
    is_over,
    summary_of,
    train_begun,
)
from grndist.runs.worker import Order, Outcome
from grndist.storage import is_remote, joined, open_storage
from grndist.tracking import Tracker
from grndist.training import checkpoint

logger = logging.getLogger(__name__)


def train_on_ray(config: RunConfig, resume: bool = False, overwrite: bool = False) -> RunSummary:
    """Train one model on workers of a Ray cluster and leave its last checkpoint in the run directory.

    A model that learns from moments is trained in this process, and only the pass over the cells is the workers'.

    Raises:
        UserError: the store, the run directory, the settings or the cluster do not allow it.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is left, if there was time for one.
    """
    assert config.workers is not None
    if overwrite and is_remote(config.runs):
        raise UserError(
            f"{joined(config.runs, config.name)}: several workers cannot replace a run at a URL; give another name=..."
        )
    if not (models.can_share(config.model) or models.is_solved(config.model)):
        raise UserError("model.form=plain is trained by one process; set model.form=fast, or leave out the workers")
    with begun(config, resume, overwrite, is_here=False) as run:
        if run.config.training.source == "moments":
            refuse_unfit(run.config, run.view)
            with cluster_of(config.workers):
                return train_begun(run, overwrite, pass_on_ray(config.workers))
        _warn_of_idle(run.config, config.workers)
        with (
            _checkpoints(run) as folder,
            logging_outcome(run.place) as log_outcome,
            tracking(run.place.folder, run.config, run.view) as tracker,
        ):
            run.place.deliver()
            trained = None if is_over(run) else _train(run, config.workers, tracker)
            final = _newest(run, folder)
            log_outcome(tracker, final)
            summary = finished(run, final) if trained is None else _summary(run, final, *trained)
        return replace(summary, augmentation=augmentation.reason(run.place.folder), tracking=tracker.where())


def _warn_of_idle(config: RunConfig, workers: WorkersConfig) -> None:
    """Say that a run which goes on has fewer streams than workers now: they stay those that it was begun with."""
    streams = config.training.streams or 1
    if streams < workers.max:
        logger.warning(
            "training.streams=%d of this run are dealt to %d of the workers at most; the others have no cells, and "
            "only wait", streams, streams,
        )  # fmt: skip


@contextmanager
def _checkpoints(run: Begun) -> Iterator[Path]:
    """The folder where checkpoints are, or where one can be brought if they are at a URL."""
    if not is_remote(run.place.run):
        yield run.place.folder / "checkpoints"
        return
    with tempfile.TemporaryDirectory(prefix="grndist-final-") as aside:
        yield Path(aside)


def _newest(run: Begun, folder: Path) -> Path:
    """The newest checkpoint, on this machine.

    Raises:
        CheckpointError: there is none.
    """
    if not is_remote(run.place.run):
        return checkpoint.latest(folder)
    return checkpoint.fetch_latest(open_storage(run.place.run), "checkpoints", folder, checkpoint.NETWORK_FILES)


def _summary(run: Begun, final: Path, outcome: Outcome, seconds: float) -> RunSummary:
    return summary_of(run, final, seconds, outcome.cells_per_second, outcome.losses)


def _train(run: Begun, workers: WorkersConfig, tracker: Tracker) -> tuple[Outcome, float]:
    """Start the workers, follow them to the end, and say what came of it and in how many seconds.

    Raises:
        UserError: of the workers; or they were lost too often, or cannot be started.
        Interrupted: a signal has come.
    """
    started = time.monotonic()
    first = 0 if run.start is None else checkpoint.describe(run.start).step
    with collected() as signals, cluster_of(workers), tempfile.TemporaryDirectory(prefix="grndist-ray-") as aside:
        board = _board()
        following = Following(workers, board, tracker, signals, first, steps_of(run.config, run.view))
        fit = Fit(trainer(Order(run.config, run.place.token), workers, board, Path(aside)))
        following.to_the_end(fit)
        if mistake := ray.get(board.mistake.remote()):
            raise UserError(mistake)
        try:
            outcome = fit.outcome()
        except (TrainingFailedError, RayError) as error:
            raise following.explained(error) from error
    if outcome.stopped:
        there = f"the checkpoint of that step in {joined(run.place.run, 'checkpoints')}"
        raise interrupted(following.step, following.steps, there, signals[0])
    return outcome, time.monotonic() - started


def _board() -> Any:
    """A board on the node of this process: it must not be lost with another."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
