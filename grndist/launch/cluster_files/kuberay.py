"""What is wrong with a RayJob of KubeRay: its shape, and what a well-shaped one may still get wrong."""

import itertools
from typing import Any

from pydantic import BaseModel, ValidationError

from grndist.config import Tree
from grndist.launch.cluster_files import secrets, versions
from grndist.launch.cluster_files.problems import at, mappings, shown, unknown, whole
from grndist.launch.cluster_files.rayjob import RayJob

CLUSTER = ("spec", "rayClusterSpec")
PLACE = "spec.rayClusterSpec"
SECRET = "put it in a Secret of Kubernetes and name that: authOptions.secretName, or valueFrom.secretKeyRef"


def problems(tree: Tree) -> list[str]:
    """Every problem, a line each."""
    cluster = at(tree, *CLUSTER)
    return [
        *_shape(tree),
        *_authentication(cluster),
        *_exposed(cluster),
        *_groups(cluster),
        *versions.given(f"{PLACE}.rayVersion", at(cluster, "rayVersion")),
        *_images(cluster),
        *secrets.in_tree(tree, SECRET),
    ]


def _shape(tree: Tree) -> list[str]:
    try:
        RayJob.model_validate(tree)
    except ValidationError as error:
        lines = {_place(one["loc"]): _described(one) for one in reversed(error.errors())}  # of a union's the first
        return list(reversed(lines.values()))
    return []


def _described(problem: Any) -> str:
    place = _place(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown(place, str(problem["loc"][-1]), _fields(problem["loc"][:-1]))
    if problem["type"] == "missing":
        return f"{place}: this field is required; cluster/kuberay-rayjob.yaml has it"
    return (
        f"{place}: {problem['msg'].removeprefix('Value error, ')} (got {shown(place, problem['input'])}); mend it there"
    )


def _place(location: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in location if part not in {"int", "str"})  # members of a union


def _fields(location: tuple[str | int, ...]) -> list[str]:
    """The names that a mapping at this place may have."""
    shape: type[BaseModel] = RayJob
    for part in location:
        inner = [field for field in shape.model_fields.values() if field.alias == part]
        shape = next((one for field in inner for one in _shapes(field.annotation)), shape)
    return [str(field.alias) for field in shape.model_fields.values()]


def _shapes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _shapes(inner)]


def _authentication(cluster: Any) -> list[str]:
    mode = at(cluster, "authOptions", "mode")
    if mode == "token":
        return []
    what = "missing" if mode is None else f"{mode!r}"
    return [f"{PLACE}.authOptions.mode: {what}; give `mode: token`, or all of Kubernetes may run code on the cluster"]


def _exposed(cluster: Any) -> list[str]:
    """The problems of a head that can be reached from outside Kubernetes."""
    head, lines = at(cluster, "headGroupSpec"), []
    if at(head, "serviceType") not in (None, "ClusterIP"):
        lines.append(f"serviceType: {head['serviceType']!r} opens the dashboard to the outside; give ClusterIP")
    if at(head, "enableIngress"):
        lines.append("enableIngress: opens the dashboard to the outside; leave it out and use kubectl port-forward")
    return [f"{PLACE}.headGroupSpec.{line}" for line in lines]


def _groups(cluster: Any) -> list[str]:
    """The problems of numbers of pods, and of groups of one name."""
    groups = mappings(at(cluster, "workerGroupSpecs"))
    lines = [line for n, group in groups for line in _replicas(f"{PLACE}.workerGroupSpecs.{n}", group)]
    names = [str(group.get("groupName")) for _, group in groups]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [*lines, *(f"{PLACE}.workerGroupSpecs: two groups are called {name!r}; rename one" for name in twice)]


def _replicas(place: str, group: dict[Any, Any]) -> list[str]:
    numbers = [(key, group[key]) for key in ("minReplicas", "replicas", "maxReplicas") if whole(group.get(key))]
    negative = [f"{place}.{key}: {value} is negative; give 0 or more" for key, value in numbers if value < 0]
    return negative or [
        f"{place}.{less}: {value} is more than {more}, {limit}; lower it"
        for (less, value), (more, limit) in itertools.pairwise(numbers)
        if value > limit
    ]


def _images(cluster: Any) -> list[str]:
    groups = [("headGroupSpec", at(cluster, "headGroupSpec"))]
    groups += [(f"workerGroupSpecs.{n}", group) for n, group in mappings(at(cluster, "workerGroupSpecs"))]
    lines = versions.in_image(f"{PLACE}.autoscalerOptions.image", at(cluster, "autoscalerOptions", "image"))
    for name, group in groups:
        containers = mappings(at(group, "template", "spec", "containers"))[:1]  # Ray is in the first of a pod
        for n, container in containers:
            place = f"{PLACE}.{name}.template.spec.containers.{n}.image"
            lines += versions.in_image(place, container.get("image"))
    return lines
