"""Whether machines are fit for a run: pure functions of what they say about themselves."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace

from grndist.launch.checks import Check, ok, problem, skipped
from grndist.launch.node_facts import NodeFacts, Space

GIB = 2**30
LEAST_FREE = 1 * GIB  # of a run root: checkpoints of a genome's network take hundreds of MiB each
FULLEST = 0.95  # Ray refuses to write objects to a file system that is fuller (local_fs_capacity_threshold)
LEAST_SHARED = 128 * 2**20  # Docker gives 64 MiB if nobody asks for more
SAME = ("python", "ray", "torch", "grndist")


def versions(here: NodeFacts) -> Check:
    """What is installed here."""
    missing = [name for name, version in here.versions.items() if not version and name != "ray"]
    found = ", ".join(f"{name} {version or 'not installed'}" for name, version in here.versions.items())
    if missing:
        return problem("versions", found, f"pip install {' '.join(missing)}")
    return ok("versions", found)


def same_versions(here: NodeFacts, nodes: Mapping[str, NodeFacts]) -> list[Check]:
    """Whether every node has the versions of this machine, which pickled code and checkpoints need."""
    return merged("same versions", {name: _same_versions(here, node) for name, node in nodes.items()})


def _same_versions(here: NodeFacts, node: NodeFacts) -> Check:
    def public(facts: NodeFacts, name: str) -> str:
        text = facts.versions[name].partition("+")[0]  # torch 2.9+cpu and 2.9+cu128 go together
        return ".".join(text.split(".")[:2]) if name == "python" else text

    other = [name for name in SAME if public(here, name) != public(node, name)]
    if not other:
        return ok("same versions", "python, ray, torch and grndist are those of this machine")
    found = ", ".join(f"{name} {node.versions[name] or 'missing'} (here {here.versions[name]})" for name in other)
    return problem("same versions", found, "install the same on every machine, e.g. from one image")


def gpus(machine: NodeFacts, wanted: bool) -> Check:
    """GPUs that torch can use; none are a problem only where they are `wanted`, or where there is a driver."""
    torch = f"torch {machine.versions['torch']}"
    if machine.gpus:
        return ok("GPUs", f"{len(machine.gpus)} ({', '.join(sorted(set(machine.gpus)))}), {torch}")
    if machine.has_driver:
        return problem("GPUs", f"NVIDIA's driver is there, and {torch} finds no GPU", "install a CUDA build of torch")
    if wanted:
        return problem("GPUs", f"{torch} finds none, and training.device=cuda", "set training.device=cpu, or use GPUs")
    return skipped("GPUs", "none")


def network(machine: NodeFacts, several: bool) -> Check:
    """Whether gloo and NCCL will talk over an interface that the `several` machines can reach."""
    for variable, value in machine.wanted.items():
        if not _exists(variable, value, machine.interfaces):
            found = f"{variable}={value}, and the interfaces here are {', '.join(machine.interfaces)}"
            return problem("network", found, f"unset {variable} (grndist finds the interface), or name one of these")
    leads = f"resolves to {machine.resolved}" if machine.resolved else "does not resolve"
    found = f"{machine.host} {leads}; others reach it at {machine.ip} on {machine.interface or 'an unknown interface'}"
    if machine.wanted:
        return ok("network", "; ".join([found, *(f"{name}={value}" for name, value in machine.wanted.items())]))
    if several and ipaddress.ip_address(machine.ip).is_loopback:
        return problem("network", found, "give it an address that the other machines reach")
    if several and not machine.interface:
        return problem("network", found, f"set GLOO_SOCKET_IFNAME to the interface that carries {machine.ip}")
    return ok("network", f"{found}, which workers use")


def _exists(variable: str, value: str, interfaces: tuple[str, ...]) -> bool:
    """A name for gloo; for NCCL a prefix of one, or a name after '=', or, after '^', those that it is not to use."""
    if value.startswith("^"):
        return True
    names = value.removeprefix("=").split(",")
    exact = variable.startswith("GLOO") or value.startswith("=")
    return any(found == name if exact else found.startswith(name) for name in names for found in interfaces)


def storage(machine: NodeFacts, runs: str) -> Check:
    """Whether the run root can be written to from this machine."""
    if machine.storage:
        remedy = (
            "give runs=... on storage that every machine mounts at the same path, or a URL such as s3://BUCKET/runs"
        )
        return problem("storage", f"{runs}: {machine.storage}", remedy)
    return ok("storage", f"{runs} can be written to")


def disk(machine: NodeFacts) -> Check:
    """Whether there is room for checkpoints, for what Ray spills, and for its objects in shared memory."""
    shown = [f"{space.path} {_gib(space.free)} free" for space in machine.disks.values()]
    shared = machine.shared_memory
    found = ", ".join([*shown, *([f"/dev/shm {_gib(shared.total)}"] if shared else [])])
    if "runs" in machine.disks and machine.disks["runs"].free < LEAST_FREE:
        return problem("disk", found, "free some space, or give another runs=...")
    if _is_full(machine.disks["ray"]):
        remedy = "free some space there: beyond 95 % Ray no longer writes; or start Ray with --temp-dir"
        return problem("disk", found, remedy)
    if shared and shared.total < LEAST_SHARED:
        return problem("disk", found, "make shared memory larger: docker run --shm-size=2g, or an emptyDir in memory")
    return ok("disk", found)


def _is_full(space: Space) -> bool:
    return space.free < (1 - FULLEST) * space.total


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"


def everywhere(what: str, check: Callable[[NodeFacts], Check], nodes: Mapping[str, NodeFacts]) -> list[Check]:
    """A check of every node."""
    return merged(what, {name: check(node) for name, node in nodes.items()})


def merged(what: str, by_node: Mapping[str, Check]) -> list[Check]:
    """A line for each node with a problem; where there is none, one line for all that were looked at."""
    named = {name: f"{name}: {one.found}" if len(by_node) > 1 else one.found for name, one in by_node.items()}
    problems = [replace(one, found=named[name]) for name, one in by_node.items() if one.state == "problem"]
    if problems or not by_node:
        return problems
    found = {one.found for one in by_node.values()}
    state = ok if any(one.state == "ok" for one in by_node.values()) else skipped
    alike = len(found) == 1 and len(by_node) > 1
    return [state(what, f"{found.pop()}, on all {len(by_node)} machines" if alike else "\n".join(named.values()))]
