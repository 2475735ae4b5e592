"""Training on the workers of a Ray cluster, through Ray Train.

This process holds the run directory, tracks the run and shows how it goes. The workers take the steps; the first of
them writes checkpoints and numbers. When workers are lost, or room for more is found, Ray starts all of them again, and
they go on from the last checkpoint.

Ray Train's own checkpoints are not used: those of the run directory are what `--resume` in one process and `infer`
read, too.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import torch
from ray.train import FailureConfig, LoggingConfig, ScalingConfig, get_context
from ray.train import RunConfig as TrainConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grndist import models
from grndist.errors import UserError
from grndist.launch.board import Board
from grndist.launch.cluster import alive, cluster_of, described_room, room
from grndist.launch.messages import Forwarded, Message, Teller, taken
from grndist.launch.moments import pass_on_ray
from grndist.launch.network import interface_of
from grndist.runs import augmentation
from grndist.runs.config import RunConfig, WorkersConfig
from grndist.runs.folder import tracking
from grndist.runs.learning import steps_of
from grndist.runs.refusals import refuse_unfit
from grndist.runs.steps import News
from grndist.runs.stopping import Interrupted, collected
from grndist.runs.train import (
    Begun,
    RunSummary,
    begun,
    finished,
    interrupted,
    is_over,
    news_bar,
    summary_of,
    train_begun,
)
from grndist.runs.worker import Order, Outcome, work
from grndist.storage import is_remote, joined, open_storage
from grndist.tracking import Tracker
from grndist.training import checkpoint
from grndist.training.distributed import Group

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 60  # that workers, when asked, may be silent before their last checkpoint

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
        with _checkpoints(run) as folder, tracking(run.place.folder, run.config, run.view) as tracker:
            run.place.deliver()
            trained = None if is_over(run) else _train(run, config.workers, tracker)
            final = _newest(run, folder)
            tracker.log_model({name: final / name for name in checkpoint.NETWORK_FILES})
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
    with collected() as signals, cluster_of(workers), tempfile.TemporaryDirectory(prefix="grndist-ray-") as aside:
        board = _board()
        fit = _Fit(_trainer(Order(run.config, run.place.token), workers, board, Path(aside)))
        step, steps = _follow(run, fit, board, tracker, signals)
        if mistake := ray.get(board.mistake.remote()):
            raise UserError(mistake)
        outcome = fit.outcome(workers)
    if outcome.stopped:
        there = joined(run.place.run, "checkpoints")
        raise interrupted(step, steps, f"the checkpoint of that step in {there}", signals[0])
    return outcome, time.monotonic() - started


def _board() -> Any:
    """A board on the node of this process: it must not be lost with another."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()


def _trainer(order: Order, workers: WorkersConfig, board: Any, aside: Path) -> TorchTrainer:
    resources = {"CPU": workers.cpus_per_worker}
    if workers.gpus_per_worker:
        resources["GPU"] = workers.gpus_per_worker
    return TorchTrainer(
        _in_a_worker,
        train_loop_config={"order": order, "board": board},
        torch_config=_OwnInterface(timeout_s=int(workers.collective_timeout)),
        scaling_config=ScalingConfig(
            num_workers=(workers.min, workers.max) if workers.is_elastic else workers.max,
            use_gpu=workers.gpus_per_worker > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=workers.resize_every,
        ),
        run_config=TrainConfig(
            name=order.config.name,
            storage_path=str(aside),
            failure_config=FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=workers.controller_failure_limit
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _in_a_worker(given: dict[str, Any]) -> Outcome | None:
    """What Ray Train calls in every worker; nothing comes of an attempt after a mistake that it would not mend."""
    order, board, rank = given["order"], given["board"], get_context().get_world_rank()
    if ray.get(board.mistake.remote()):
        return None
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    teller = Teller(board)
    line = teller.line()
    forwarded = Forwarded(line)
    if rank == 0:
        logging.getLogger("grndist").addHandler(forwarded)
    try:
        return work(order, Group(device), line)
    except UserError as error:
        ray.get(board.note.remote(str(error)))
        raise
    finally:
        logging.getLogger("grndist").removeHandler(forwarded)
        if rank == 0:
            teller.close()


class _Fit:
    """Ray Train at work in a thread, so that this process can follow it and be interrupted."""

    def __init__(self, trainer: TorchTrainer):
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(trainer,), name="ray train", daemon=True)
        self._thread.start()

    def _work(self, trainer: TorchTrainer) -> None:
        try:
            self._result = trainer.fit()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks for the outcome
            self._error = error

    def is_over(self, wait: float) -> bool:
        """Whether it has ended, after so many seconds at most."""
        self._thread.join(wait)
        return not self._thread.is_alive()

    def outcome(self, workers: WorkersConfig) -> Outcome:
        """What the first worker said at the end.

        Raises:
            UserError: workers could not be started, or were lost too often.
        """
        if self._error is not None:
            raise _explained(self._error, workers) from self._error
        outcome: Outcome = self._result.return_value
        return outcome


def _follow(run: Begun, fit: _Fit, board: Any, tracker: Tracker, signals: list[int]) -> tuple[int, int]:
    """Show and track what the workers tell until they have ended; the last step that they have told, and of how many.

    Raises:
        UserError: there has not been room for the workers for longer than their start may take.
        Interrupted: a signal has come, and they did not end in time.
    """
    first = 0 if run.start is None else checkpoint.describe(run.start).step
    steps, step, heard, asked = steps_of(run.config, run.view), first, time.monotonic(), None
    have_begun = False
    workers = run.config.workers
    assert workers is not None
    with news_bar(first, steps) as show:
        over, nodes = False, alive()
        while not over:
            over = fit.is_over(SECONDS_BETWEEN_LOOKS)
            if alive() != nodes:
                logger.info("the cluster has %d nodes now (%d before)", alive(), nodes)
                nodes = alive()
            for message in taken(board):
                heard, have_begun = time.monotonic(), True
                step = _pass_on(message, tracker, show) or step
            if signals and asked is None:
                asked = time.monotonic()
                board.stop.remote()
            if signals and not (over or have_begun):
                raise Interrupted(
                    f"stopped before step {step + 1}, while workers were still to be started: there is nothing to "
                    "save; go on with the same command and --resume", signals[0],
                )  # fmt: skip
            if asked is not None and time.monotonic() - max(asked, heard) > SECONDS_TO_STOP and not over:
                raise interrupted(step, steps, "the last checkpoint", signals[0])
            if time.monotonic() - heard > _patience(workers) and room(workers) < workers.min and not over:
                raise _no_room(workers)
    return step, steps


def _pass_on(message: Message, tracker: Tracker, show: Callable[[News], None]) -> int:
    """Bring a message to people and to tracking; its step, or 0."""
    for saying in message.sayings:
        logger.info("%s", saying)
    for step, numbers in message.numbers:
        tracker.log_metrics(step, numbers)
    if message.news is None:
        return 0
    show(message.news)
    return message.news.step


def _patience(workers: WorkersConfig) -> float:
    """Seconds without news, and without room for the fewest workers, after which a run is given up."""
    return workers.start_timeout * (workers.controller_failure_limit + 1)


def _no_room(workers: WorkersConfig) -> UserError:
    fewer = "" if workers.is_elastic else f"--workers 1..{workers.max} goes on with as many as there are; "
    return UserError(
        f"the run needs {workers.min} {described_room(workers)}. Add machines or lower the number of workers "
        f"({fewer}the results are the same), then go on with --resume"
    )


def _explained(error: BaseException, workers: WorkersConfig) -> UserError:
    """Ray Train's reasons, in one line."""
    if room(workers) < workers.min:
        return _no_room(workers)
    text = str(error).strip()
    reason = text.splitlines()[-1] if text else type(error).__name__
    return UserError(
        f"the workers were lost, or could not be started, too often ({reason}); see the logs of Ray (`ray logs`, "
        "/tmp/ray/session_latest/logs), raise workers.max_failures or workers.start_timeout, and go on with --resume"
    )


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc] # the class that Ray has for PyTorch
    """PyTorch's process group, over the network interface by which Ray reaches each worker's machine."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_own_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class _OwnInterface(TorchConfig):
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def _use_own_interface() -> None:
    """Without it gloo takes the address of the host's name, which may be the loopback's."""
    address = ray.util.get_node_ip_address()
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, interface_of(address))
