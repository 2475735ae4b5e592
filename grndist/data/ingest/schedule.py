"""Running many independent tasks: here, in threads by Dask, or wherever a `Run` of `launch` sends them.

A task is a call without arguments that leaves its result in a file and can be pickled. Nothing comes back but its
failure, so it does not matter where it runs as long as the files are visible there.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import dask

Task = Callable[[], None]
Run = Callable[[Sequence[Task]], None]


def inline(tasks: Sequence[Task]) -> None:
    """Run tasks one after the other in this thread."""
    for task in tasks:
        task()


def threads(number: int) -> Run:
    """Runs tasks in `number` threads of this process; after a failure the running ones are waited for."""

    def run(tasks: Sequence[Task]) -> None:
        with ThreadPoolExecutor(number) as pool:
            dask.compute(delayed(tasks), scheduler="threads", pool=pool, num_workers=number)

    return run


def delayed(tasks: Sequence[Task]) -> list:
    """The tasks for Dask, each under a name of its own (never hashed: tasks are run for their effect)."""
    return [dask.delayed(task, pure=False, traverse=False)() for task in tasks]
