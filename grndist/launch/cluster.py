"""This process's connection to a Ray cluster, and what the cluster has room for."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from grndist.errors import UserError
from grndist.runs.config import WorkersConfig

SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in the folder where they were started
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}

logger = logging.getLogger(__name__)


@contextmanager
def connected(workers: WorkersConfig) -> Iterator[None]:
    """Be connected to the Ray cluster of these workers while the block runs; one that is started here ends with it.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address; or one on this machine is too small.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"workers need Ray, which cannot be imported ({error}); pip install 'grndist[cluster]'"
        ) from None
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(workers.start_timeout)
    if ray.is_initialized():  # by whoever called this: a test, a notebook
        yield
        return
    is_own = _init(ray, workers.address)
    try:
        if is_own:
            _refuse_little_room(workers)
        yield
    finally:
        ray.shutdown()


def _init(ray: Any, address: str) -> bool:
    """Connect to a cluster; whether it is one that was started for this."""
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "local":
        try:
            ray.init(address=address or "auto", **how)
        except (ConnectionError, ValueError, RuntimeError) as error:
            if address or os.environ.get("RAY_ADDRESS"):
                raise _nobody_answers(address or os.environ["RAY_ADDRESS"], error) from error
        else:
            return False
    ray.init(address="local", **how)
    return True


def _nobody_answers(address: str, error: Exception) -> UserError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"{address}: no Ray cluster answers there ({why}); start one with `ray start --head`, see that RAY_AUTH_MODE "
        "and the token are those of the cluster (`grndist doctor`), or give --address local for workers on this machine"
    )


@contextmanager
def own_error() -> Iterator[None]:
    """Raise what a task on the cluster has raised as it was, without the task around it."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        cause = error
        while isinstance(cause, RayTaskError):  # one inside the other, where a task waited for the one that failed
            cause = cause.cause
        raise cause from error


def room(workers: WorkersConfig) -> int:
    """How many of these workers the nodes of the cluster could hold if nothing else ran there."""
    import ray

    needed = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(node.get(what, 0) // much for what, much in needed.items() if much > 0)) for node in nodes)


def described_room(workers: WorkersConfig) -> str:
    """What the workers need and what there is, in words."""
    gpus = f" and {workers.gpus_per_worker:g} GPUs" if workers.gpus_per_worker else ""
    return f"workers of {workers.cpus_per_worker:g} CPUs{gpus} each; the cluster has room for {room(workers)}"


def _refuse_little_room(workers: WorkersConfig) -> None:
    if room(workers) < workers.min:
        raise UserError(
            f"the run needs {workers.min} {described_room(workers)}; give fewer workers, or a lower "
            "workers.cpus_per_worker, or the address of a larger cluster"
        )
