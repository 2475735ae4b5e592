"""Something done on every node of a Ray cluster, or on the places of some workers."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from grndist.errors import UserError
from grndist.launch.connection import last_line

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class OnNodes(Generic[T]):
    """What every node answered, by its name: host name and address."""

    answers: dict[str, T]
    failures: dict[str, Failure]

    @property
    def names(self) -> list[str]:
        """Of all nodes, also of those that failed."""
        return [*self.answers, *self.failures]


def on_every_node(work: Callable[..., T], *arguments: Any, seconds: float = 120.0) -> OnNodes[T]:
    """`work(*arguments)` on every living node, all at once; each has so many seconds."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(work)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            *arguments
        ): f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in ray.nodes()
        if node["Alive"]
    }
    ready = set(ray.wait(list(asked), num_returns=len(asked), timeout=seconds)[0])
    late = Failure(f"no answer within {seconds:g} s")
    found = {name: _answer(one) if one in ready else late for one, name in asked.items()}
    return OnNodes(
        {node: answer for node, answer in found.items() if not isinstance(answer, Failure)},
        {node: answer for node, answer in found.items() if isinstance(answer, Failure)},
    )


@contextmanager
def placed(workers: int, resources: dict[str, float], seconds: float) -> Iterator[Any]:
    """Hold places for some workers, for which a cluster that can grow has so many seconds; Ray's placement group.

    None where there were not enough within that time.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([resources] * workers)  # packed, as Ray Train asks for them
    try:
        yield group if group.wait(seconds) else None
    finally:
        remove_placement_group(group)


def most_on_a_node(group: Any) -> int:
    """How many of the places are on the node with the most."""
    from ray.util.placement_group import placement_group_table

    return max(Counter(placement_group_table(group)["bundles_to_node_id"].values()).values())


def on_a_place(
    group: Any, resources: dict[str, float], seconds: float, work: Callable[..., T], *arguments: Any
) -> T | Failure:
    """`work(*arguments)` in a process of its own on the first of the places, with all that it has."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    how = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0), "scheduling_strategy": place}
    one = ray.remote(max_retries=0, max_calls=1, **how)(work).remote(*arguments)
    if ray.wait([one], timeout=seconds)[0]:
        answer: T | Failure = _answer(one)
        return answer
    ray.cancel(one, force=True)
    return Failure(f"no answer within {seconds:g} s")


def _answer(task: Any) -> Any:
    """What a task gave, or why it gave nothing, in one message."""
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return Failure(f"{error.cause}" if isinstance(error.cause, UserError) else last_line(error))
    except ray.exceptions.RayError as error:
        return Failure(last_line(error))
