"""A run tried out before it starts, where it will run: `grndist preflight`. The run directory is not touched."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.launch import authentication
from grndist.launch.checks import Check, exit_status, failed, ok, problem, skipped
from grndist.launch.cluster import cluster_of, described_room
from grndist.launch.machine_checks import GIB, merged
from grndist.launch.network import own_ip
from grndist.launch.nodes import Failure, most_on_a_node, on_a_place, on_every_node, placed
from grndist.launch.shared import marked, refusal
from grndist.launch.tracking_check import tracking
from grndist.machine import available_memory
from grndist.runs.config import RunConfig, WorkersConfig
from grndist.runs.probe import Probe, probe

SECONDS_FOR_PROBE = 1800.0  # a pass over a large store may be among what a model needs to begin
SHARED = "put it on storage that every node mounts at the same path, or give a URL such as s3://BUCKET/..."
SPANS = ((86400, "days"), (3600, "h"), (60, "min"))


class Tried(NamedTuple):
    """What a probe shows, and on what."""

    probe: Probe
    free: int  # bytes of memory before it
    sharing: int = 1  # workers on this machine


def preflight(config: RunConfig) -> Iterator[Check]:
    """Everything there is to try, as it is found: on the workers' cluster, or in this process where none are asked.

    Raises:
        UserError: there is no cluster.
    """
    if config.workers is None:
        yield skipped("workers", "none are asked for, so the run is one process on this machine")
        storage = _storage(config, {"this machine": _storage_from_here(config.store, config.runs)})
        yield from [*storage, tracking(config.tracking, config.runs)]
        if not exit_status(storage):
            yield from costs(config, tried(config))
        return
    yield from authentication.checked()
    with cluster_of(config.workers):
        yield from _on_cluster(config, config.workers)


def _on_cluster(config: RunConfig, workers: WorkersConfig) -> Iterator[Check]:
    resources = {"CPU": workers.cpus_per_worker} | ({"GPU": workers.gpus_per_worker} if workers.gpus_per_worker else {})
    begun = time.monotonic()
    with placed(workers.min, resources, workers.start_timeout) as group:
        asked = f"{workers.min} {described_room(workers)}"
        if group:
            yield ok("workers", f"{asked}; places were held after {time.monotonic() - begun:.1f} s")
        else:
            yield problem("workers", f"{asked}; no places within {workers.start_timeout:g} s", _remedy_of_room(workers))
        with marked(config.runs) as mark:
            found = on_every_node(_storage_from_here, config.store, config.runs, mark)
        is_node = any(f"({own_ip()})" in name for name in found.names)
        here = {} if is_node else {"this machine": _storage_from_here(config.store, config.runs)}
        yield from (problem("nodes", f"{name}: {why}", "grndist doctor") for name, why in found.failures.items())
        storage = _storage(config, here | found.answers)
        yield from [*storage, tracking(config.tracking, config.runs)]
        if group and not exit_status(storage):
            answer = on_a_place(group, resources, SECONDS_FOR_PROBE, tried, config)
            sharing = most_on_a_node(group)
            yield from costs(config, answer._replace(sharing=sharing) if isinstance(answer, Tried) else answer)


def _remedy_of_room(workers: WorkersConfig) -> str:
    return (
        f"give fewer than {workers.min} workers or fewer workers.cpus_per_worker, wait for other work to end, or, if "
        "machines are still to be started, raise workers.start_timeout"
    )


def _storage_from_here(store: str, runs: str, mark: str = "") -> tuple[str, str]:
    """Why the store cannot be read and the run root not be written to from here; empty words if they can."""
    try:
        open_store(store)
    except UserError as error:
        return str(error), refusal(runs, mark)
    return "", refusal(runs, mark)


def _storage(config: RunConfig, found: dict[str, tuple[str, str]]) -> list[Check]:
    places = (("store", config.store, "can be read"), ("run root", config.runs, "can be written to"))
    return [
        check
        for at, (what, where, well) in enumerate(places)
        for check in merged(
            what, {name: _place(what, why[at], f"{where} {well}", len(found) > 1) for name, why in found.items()}
        )
    ]


def _place(what: str, why: str, well: str, several: bool) -> Check:
    if not why:
        return ok(what, well)
    return problem(what, why, SHARED) if several else failed(what, UserError(why))


def tried(config: RunConfig) -> Tried | Failure:
    """The probe in this process, which is one of the run's workers, or none of any."""
    free = available_memory()
    try:
        return Tried(probe(config, config.workers.min if config.workers else 1), free)
    except UserError as error:
        return Failure(str(error))


def costs(config: RunConfig, found: Tried | Failure) -> list[Check]:
    """Memory and time of the run, as the probe foretells them."""
    if isinstance(found, Failure):
        return [failed("probe", UserError(found.why))]
    return [_memory(config, found), *_device_memory(found.probe), ok("time", _time(config, found.probe))]


def _memory(config: RunConfig, found: Tried) -> Check:
    """What is free has to be enough for all workers of the machine."""
    seen = found.probe
    later = max(seen.known_memory, 0) if not seen.seconds_per_step else 0  # moments of which a part was summed
    needed = max(seen.peak_memory, later)
    known = f" ({_gib(seen.known_memory)} follow from the settings)" if seen.known_memory > GIB / 100 else ""
    which = "a worker" if config.workers else "the run"
    text = f"{which} takes {_gib(needed)}{known}; {_gib(found.free)} were free for {found.sharing} on this machine"
    if needed * found.sharing > found.free:
        remedy = "lower training.cells_per_step or training.genes_per_step, or put fewer workers on a machine"
        return problem("memory", text, remedy)
    return ok("memory", text)


def _device_memory(seen: Probe) -> list[Check]:
    return [ok("GPU memory", f"{_gib(seen.device_memory)} at most")] if seen.device_memory else []


def _time(config: RunConfig, seen: Probe) -> str:
    """In words; what the workers lose by waiting for each other is not known."""
    if not seen.seconds_per_step:
        alone = "" if config.workers is None else " in one task"
        return (
            f"about {duration(seen.seconds_to_prepare)} for the pass over {seen.n_cells:,} cells{alone}; what comes "
            f"after it was not tried (steps: {seen.steps:,})"
        )
    which = f" of one of {config.workers.min} workers, not waiting for the others" if config.workers else ""
    pilots = f", of which pilots {duration(seen.pilot_seconds)}" if seen.pilot_steps else ""
    return (
        f"{duration(seen.seconds_to_prepare)} to begin, then {duration(seen.seconds_per_step)} a step{which}\n"
        f"an epoch of {seen.steps_per_epoch:,} steps {duration(seen.steps_per_epoch * seen.seconds_per_step)}, "
        f"the run of {seen.steps:,} steps {duration(seen.seconds)}{pilots}"
    )


def duration(seconds: float) -> str:
    """With a unit that suits it, e.g. "12 s" or "3.5 h"."""
    for span, unit in SPANS:
        if seconds >= 2 * span:
            return f"{seconds / span:.1f} {unit}"
    return f"{seconds:.3g} s"


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"
