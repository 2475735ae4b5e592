"""Who does the tasks of a baseline: this process, or processes of this machine. `launch.tasks` has Ray's."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from joblib import Parallel, delayed  # type: ignore[import-untyped]  # scikit-learn brings it

from grndist.machine import available_cpus

Work = Callable[[Any, int], Any]  # of what all tasks share and the number of one of them
RunTasks = Callable[[Work, Any, Sequence[int]], Generator[Any, None, None]]  # results as they come, in any order


def processes(count: int | None = None) -> RunTasks:
    """Runs tasks in so many processes of this machine (all its CPUs if not given); 1 is this process itself.

    Large arrays among what they share are written down once and mapped into the memory of each.
    """
    count = count or available_cpus()

    def run(work: Work, shared: Any, tasks: Sequence[int]) -> Generator[Any, None, None]:
        if count == 1 or len(tasks) < 2:
            for task in tasks:
                yield work(shared, task)
        else:
            pool = Parallel(n_jobs=min(count, len(tasks)), return_as="generator_unordered")
            yield from pool(delayed(work)(shared, task) for task in tasks)

    return run
