"""A contender that works in rounds: a line of input begins one, a line of JSON says what it cost.

CPU time is user and system time of all threads. Needs nothing but Python, because it runs in every environment.
"""

import json
import os
import sys
import time
from pathlib import Path

EPOCHS, BATCHES = 3, 2  # of a round, and of each of its epochs


class Turns:
    """What a contender calls between its rounds, from wherever in its work they meet."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not come between the answers
        self.begun: tuple[float, float] | None = None
        self.held = 0

    def hold(self) -> None:
        """Memory is counted from what the process holds now."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        self.held = memory_kib("VmRSS")

    def begin(self) -> None:
        """End the round before, if there was one, and wait until the next is asked for."""
        self.end()
        if not sys.stdin.readline():
            sys.exit()
        self.begun = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Answer for the round that is under way."""
        if self.begun is not None:
            wall, cpu = self.begun
            answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            peak = (memory_kib("VmHWM") - self.held) / 1024
            print(json.dumps(answer | {"peak_mib": peak}), file=self.answers, flush=True)
        self.begun = None


def memory_kib(name: str) -> int:
    """A line of /proc/self/status. Unlike getrusage's, this peak does not begin with the parent process's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0])
