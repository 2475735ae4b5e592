"""Ray Train: what it is told, and what it calls in every worker."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from grndist.errors import UserError
from grndist.launch.messages import Forwarded, Teller
from grndist.launch.network import interface_of
from grndist.runs.config import WorkersConfig
from grndist.runs.worker import Order, Outcome, work
from grndist.training.distributed import Group


class Fit:
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

    def outcome(self) -> Outcome:
        """What the first worker said at the end.

        Raises:
            TrainingFailedError: workers could not be started, or were lost too often.
        """
        if self._error is not None:
            raise self._error
        outcome: Outcome = self._result.return_value
        return outcome


def trainer(order: Order, workers: WorkersConfig, board: Any, aside: Path) -> TorchTrainer:
    """Ray Train's, whose own files are in the folder `aside`: it has no checkpoints."""
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
        run_config=RunConfig(
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
