"""What a run takes of its machine: CPU and memory of this process and those it has started, memory of its GPUs.

From Linux's /proc; nothing is measured elsewhere. MLflow's own monitor measures the whole machine and would need the
server to answer.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from grndist.tracking.keys import SYSTEM

PROC = Path("/proc")
MEBIBYTE = 2**20


class Usage:
    """Measures in turns; CPU is the mean since the last time, 100 for one core."""

    def __init__(self) -> None:
        self._when, self._seconds = time.monotonic(), _of_tree()[0]

    def measured(self) -> dict[str, float]:
        """Numbers by their names in MLflow; pages that processes share count for each."""
        if not (PROC / "self" / "stat").exists():
            return {}
        now, (seconds, resident) = time.monotonic(), _of_tree()
        share = max(seconds - self._seconds, 0.0) / max(now - self._when, 1e-6)  # a process that has ended is lost
        self._when, self._seconds = now, seconds
        measured = {"cpu_percent": 100 * share, "memory_megabytes": resident / MEBIBYTE} | _of_gpus()
        return {f"{SYSTEM}{name}": value for name, value in measured.items()}


def _of_tree() -> tuple[float, int]:
    """CPU seconds and resident bytes of this process and all below it."""
    seconds, resident = 0.0, 0
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            resident += int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            children = [file.read_text() for file in (PROC / str(pid) / "task").glob("*/children")]
        except OSError:  # it has ended, or this is not Linux
            continue
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own and those of children that ended
        waiting += [int(child) for line in children for child in line.split()]
    return seconds, resident


def _of_gpus() -> dict[str, float]:
    """What PyTorch holds of each GPU that it uses; it is not asked where it uses none."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    held = [torch.cuda.memory_reserved(number) for number in range(torch.cuda.device_count())]
    return {f"gpu_{number}_memory_megabytes": size / MEBIBYTE for number, size in enumerate(held) if size}
