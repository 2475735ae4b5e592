"""The contender's side of the benchmark: a line with a number of batches comes in, a line of JSON goes out.

CPU time is user and system time of all threads since the answer before, so that what a contender does ahead of time
between two rounds is charged to it as well. Needs nothing but Python, because it runs in every contender's environment.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def serve(batches: Iterator[Any], shape: tuple[int, int], held: Callable[[], int] = lambda: 0) -> None:
    """Answer until the input ends.

    Args:
        batches: endless; every batch is float32, dense.
        shape: what every batch must have.
        held: bytes of windows and batches that the contender holds, if it knows.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    charged = 0.0
    for line in sys.stdin:
        for _ in range(int(line)):
            batch = next(batches)
            if tuple(batch.shape) != shape or not str(batch.dtype).endswith("float32"):
                sys.exit(f"a batch is {tuple(batch.shape)} of {batch.dtype} where {shape} of float32 is wanted")
            del batch
        cpu = time.process_time()
        answer = {"cells": int(line) * shape[0], "cpu": cpu - charged, "peak": peak(), "held": held()}
        charged = cpu
        print(json.dumps(answer), file=answers, flush=True)


def peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would begin at that of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
