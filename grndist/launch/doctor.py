"""Whether this machine, the nodes of a cluster, and the places that a run names can be used: `grndist doctor`."""

import os

from grndist.launch import authentication, machine_checks
from grndist.launch.checks import Check, failed, ok, problem, skipped
from grndist.launch.connection import ClusterError, NoClusterError, connected, is_installed
from grndist.launch.jobs import JobServer
from grndist.launch.node_facts import NodeFacts, facts
from grndist.launch.nodes import OnNodes, on_every_node
from grndist.launch.shared import marked
from grndist.launch.tracking_check import tracking
from grndist.runs import RunConfig

NOBODY: OnNodes[NodeFacts] = OnNodes({}, {})


def doctor(config: RunConfig | None = None, address: str = "") -> list[Check]:
    """Everything there is to look at.

    Args:
        config: of a run, whose storage and tracking are looked at, too.
        address: HOST:PORT of a Ray cluster, or the URL of its job server, of which less can be seen; empty: that of
            the run's workers, or else Ray's own rule.
    """
    runs = config.runs if config else ""
    workers = config.workers if config else None
    address = address or (workers.address if workers else "") or os.environ.get("RAY_ADDRESS", "")
    here = facts(runs)
    is_asked = bool(address or workers)
    cluster, nodes = _cluster(address, is_asked, runs)
    machines = nodes.answers if here.ip in _addresses(nodes) else {f"{here.host} (here)": here} | nodes.answers
    needs_gpu = config is not None and config.training.device == "cuda"
    wanted = needs_gpu and not any(machine.gpus for machine in machines.values())
    everywhere = machine_checks.everywhere
    return [
        machine_checks.versions(here),
        *authentication.checked(cluster=is_asked or bool(nodes.answers)),
        cluster,
        *(problem("cluster", f"{name}: {why}", "install grndist as here") for name, why in nodes.failures.items()),
        *machine_checks.same_versions(here, nodes.answers),
        *everywhere("GPUs", lambda machine: machine_checks.gpus(machine, wanted), machines),
        *everywhere("network", lambda machine: machine_checks.network(machine, len(machines) > 1), machines),
        *(everywhere("storage", lambda machine: machine_checks.storage(machine, runs), machines) if config else []),
        tracking(config.tracking, runs) if config else skipped("storage", "no run file was given, nor tracking"),
        *everywhere("disk", machine_checks.disk, machines),
    ]  # fmt: skip


def _cluster(address: str, is_asked: bool, runs: str) -> tuple[Check, OnNodes[NodeFacts]]:
    """A line on the cluster, and what its nodes say."""
    if not is_installed():
        remedy = "pip install 'grndist[cluster]'"
        missing = problem("cluster", "Ray is not installed", remedy) if is_asked else skipped("cluster", "no Ray here")
        return missing, NOBODY
    try:
        if "://" in address:
            return ok(
                "cluster", f"the job server at {JobServer(address).address} answers; its nodes were not asked"
            ), NOBODY
        with connected(address), marked(runs) as mark:
            nodes = on_every_node(facts, runs, mark)
    except ClusterError as error:
        is_problem = is_asked or not isinstance(error, NoClusterError)
        return failed("cluster", error) if is_problem else skipped("cluster", "none runs on this machine"), NOBODY
    return ok("cluster", f"{len(nodes.answers) + len(nodes.failures)} nodes: {', '.join(nodes.names)}"), nodes


def _addresses(nodes: OnNodes[NodeFacts]) -> set[str]:
    return {node.ip for node in nodes.answers.values()}
