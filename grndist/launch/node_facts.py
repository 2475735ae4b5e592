"""What one machine says about itself; runs on every node, so it imports little and raises nothing a user can cause."""

import os
import platform
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from grndist.launch.network import addresses, interface_of, own_ip
from grndist.launch.shared import refusal
from grndist.storage import is_remote

PACKAGES = ("grndist", "torch", "ray", "mlflow", "numba")
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
NVIDIA = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Space:
    """Of a file system, in bytes."""

    path: str
    free: int
    total: int


@dataclass(frozen=True)
class NodeFacts:
    """One machine."""

    versions: dict[str, str]  # empty where a package is missing
    gpus: tuple[str, ...]  # names of those that torch can use
    has_driver: bool  # NVIDIA's
    host: str
    resolved: str  # the address that the host's own name leads to; empty where it leads nowhere
    ip: str  # at which others see it
    interface: str  # that carries it; empty where that cannot be told
    interfaces: tuple[str, ...]
    wanted: dict[str, str]  # interfaces that the environment names, by variable
    disks: dict[str, Space]  # of "ray" and, where it is a folder, "runs"
    shared_memory: Space | None
    storage: str  # why the run root cannot be used from here; empty where it can, or none was given


def facts(runs: str = "", mark: str = "") -> NodeFacts:
    """This machine. `runs` is a run root to write to; `mark` a file that must be there already."""
    ip = own_ip()
    return NodeFacts(
        versions={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        gpus=_gpus(),
        has_driver=NVIDIA.exists(),
        host=socket.gethostname(),
        resolved=_resolved(socket.gethostname()),
        ip=ip,
        interface=interface_of(ip),
        interfaces=tuple(sorted(set(addresses().values()))),
        wanted={name: os.environ[name] for name in INTERFACES if os.environ.get(name)},
        disks=_disks(runs, os.environ),
        shared_memory=space(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        storage=refusal(runs, mark) if runs else "",
    )


def space(path: Path) -> Space:
    """The file system of a path, or of the nearest folder above it that exists."""
    there = next(folder for folder in [path, *path.parents] if folder.exists())
    usage = shutil.disk_usage(there)
    return Space(str(path), usage.free, usage.total)


def _disks(runs: str, environment: Mapping[str, str]) -> dict[str, Space]:
    own = {"ray": space(Path(environment.get("RAY_TMPDIR") or "/tmp").absolute() / "ray")}
    return own if not runs or is_remote(runs) else own | {"runs": space(Path(runs).absolute())}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _gpus() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def _resolved(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:
        return ""
