"""The Ray cluster of a run's workers, and what it has room for."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from grndist.errors import UserError
from grndist.launch.connection import NoClusterError, connected, is_installed
from grndist.runs.config import WorkersConfig

SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in the folder where they were started
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@contextmanager
def cluster_of(workers: WorkersConfig) -> Iterator[None]:
    """Be connected to the cluster of these workers while the block runs; one that is started here ends with it.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address; or one on this machine is too small.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(workers.start_timeout)
    with joined_or_own(workers.address) as is_own:
        if is_own:
            _refuse_little_room(workers)
        yield


@contextmanager
def joined_or_own(address: str = "") -> Iterator[bool]:
    """Be connected to the cluster at `address`, or where none runs to a new one on this machine; whether it is that.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
    """
    with ExitStack() as stack:
        is_own = address == "local" and is_installed() and not _is_connected()
        try:
            stack.enter_context(connected(address))
        except NoClusterError:
            is_own = True
            stack.enter_context(connected("local"))
        yield is_own


def _is_connected() -> bool:
    """Whether whoever called this, a test or a notebook, is a driver already."""
    import ray

    return bool(ray.is_initialized())


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


def alive() -> int:
    """How many nodes the cluster has."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


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
