"""What this machine gives this process."""

import os
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")  # version 2, as a container sees its own


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this process may still take: what the system has to spare, or what its control group leaves."""
    try:
        spare = _fields(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    except FileNotFoundError:  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        taken = int((CONTROL_GROUP / "memory.current").read_text())
        cached = _fields(CONTROL_GROUP / "memory.stat")["inactive_file"]  # given back when it is needed
    except FileNotFoundError:
        return spare
    return spare if limit == "max" else min(spare, max(int(limit) - taken + cached, 0))


def _fields(file: Path) -> dict[str, int]:
    """The numbers of a file of lines `name number`."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
