"""Tasks elsewhere: those of an ingest on a Dask cluster, or on Ray through Dask on Ray; those of a baseline on Ray."""

from collections.abc import Generator, Sequence
from typing import Any

import dask

from grndist.data.ingest.schedule import Run, Task, delayed, threads
from grndist.errors import UserError
from grndist.evaluation.baselines import RunTasks
from grndist.evaluation.baselines.tasks import Work
from grndist.launch.cluster import joined_or_own, own_error
from grndist.machine import available_cpus

SECONDS_TO_ANSWER = 20


def scheduler(address: str | None = None, n_threads: int | None = None) -> Run:
    """Where to run the tasks of an ingest.

    Args:
        address: None for threads of this process, "tcp://host:port" of a running dask.distributed scheduler, or
            "ray" for the Ray cluster that RAY_ADDRESS names, or else a new one on this machine.
        n_threads: of this process; all its CPUs if not given.

    Raises:
        UserError: an unknown address, or threads together with one.
    """
    if address is None:
        return threads(n_threads or available_cpus())
    if n_threads is not None:
        raise UserError(f"--threads {n_threads} is for this machine and --scheduler {address} for others; give one")
    if address == "ray":
        return on_ray
    if "://" not in address:
        raise UserError(f"--scheduler {address}: 'ray' or an address like tcp://host:8786 was expected")
    return distributed(address)


def distributed(address: str) -> Run:
    """Runs tasks on the workers of a dask.distributed scheduler, who must see the same files."""

    def run(tasks: Sequence[Task]) -> None:
        from distributed import Client

        try:
            client = Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--scheduler {address}: no Dask scheduler answers there ({error}); start one with `dask scheduler` "
                "and `dask worker`, or leave the option out to use this machine"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=SECONDS_TO_ANSWER)
            except TimeoutError as error:
                raise UserError(
                    f"--scheduler {address}: the Dask scheduler there has no worker; start one with "
                    f"`dask worker {address}`"
                ) from error
            futures = client.compute(delayed(tasks))
            try:
                client.gather(futures)
            finally:
                client.cancel(futures)  # those that have not begun, after a failure

    return run


def on_ray(tasks: Sequence[Task]) -> None:
    """Run tasks on Ray, through Dask on Ray; a cluster that is started for them ends with them.

    Raises:
        UserError: Ray is not installed, or the cluster that RAY_ADDRESS names does not answer.
        Exception: whatever a task raises, as it is.
    """
    if not tasks:
        return
    with joined_or_own():
        from ray.util.dask import ray_dask_get

        with own_error():
            dask.compute(delayed(tasks), scheduler=ray_dask_get)


def baseline_tasks(address: str = "") -> RunTasks:
    """Runs the tasks of a baseline on Ray, one CPU each; what they share is sent to every node once.

    Args:
        address: of the cluster, or "local" for a new one on this machine; empty: that of RAY_ADDRESS or of this
            machine, else a new one, which ends with the tasks.
    """

    def run(work: Work, shared: Any, tasks: Sequence[int]) -> Generator[Any, None, None]:
        with joined_or_own(address):
            import ray

            task_of, there = ray.remote(num_cpus=1)(work), ray.put(shared)
            waiting = [task_of.remote(there, task) for task in tasks]
            try:
                while waiting:
                    (ready,), waiting = ray.wait(waiting)
                    with own_error():
                        found = ray.get(ready)
                    yield found
            finally:
                for task in waiting:  # whoever wanted them has gone
                    ray.cancel(task)

    return run
