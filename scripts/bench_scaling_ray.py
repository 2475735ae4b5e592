"""`grndist train` in one process against `grndist train --workers 1` through Ray; for `bench_scaling`.

Both are the same run, bit for bit, with one thread. They take turns, as processes of their own. A step is the slope of
the second half of metrics.jsonl, its time since the start against steps.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
from bench_ingest import resident
from rich.table import Table

COMMAND = [sys.executable, "-m", "grndist.cli", "train"]
WAYS = {"in one process": [], "through Ray": ["--workers", "1", "--address", "local"]}
EVERY = 0.1  # seconds
CELLS = 2048  # of a step, a divisor of the store's number


class Took(NamedTuple):
    """Of one run: seconds, and bytes of the process and its children together."""

    step: float
    to_ten_steps: float
    whole: float
    peak: int
    largest: int  # of one process of them


def compared(store: Path, steps: int, rounds: int) -> tuple[Table, dict[str, float]]:
    """One worker through Ray against none."""
    found: dict[str, list[Took]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name in WAYS if number % 2 == 0 else reversed(WAYS):
            found[name].append(took(store, steps, WAYS[name]))
    middle = {name: Took(*map(median, zip(*each, strict=True))) for name, each in found.items()}
    table = Table(title=f"grndist train, {steps} steps of CaTran, one thread")
    for name in ("command", "step, ms", "s to ten steps", "whole, s", "peak MiB of all", "of the largest"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for name, one in middle.items():
        sizes = (f"{one.peak / 2**20:,.0f}", f"{one.largest / 2**20:,.0f}")
        table.add_row(name, f"{1e3 * one.step:.1f}", f"{one.to_ten_steps:.1f}", f"{one.whole:.1f}", *sizes)
    alone, ray = middle.values()
    steps_of = zip(*([one.step for one in each] for each in found.values()), strict=True)
    return table, {
        "ray_overhead": round(median(through / bare for bare, through in steps_of), 3),
        "ray_startup_seconds": round(ray.to_ten_steps - alone.to_ten_steps, 1),
        "ray_extra_mib": round((ray.peak - alone.peak) / 2**20),
    }


def took(store: Path, steps: int, options: list[str]) -> Took:
    """What one run has cost."""
    with tempfile.TemporaryDirectory() as folder:
        metrics, run_file = Path(folder) / "runs/steps/metrics.jsonl", Path(folder) / "steps.yaml"
        run_file.write_text(
            f"preset: paper\nstore: {store}\nruns: {folder}/runs\ntracking: {{kind: none}}\n"
            f"training: {{epochs: null, steps: {steps}, cells_per_step: {CELLS}, streams: 16, threads: 1}}\n"
        )
        started, first, peak, largest = time.monotonic(), 0.0, 0, 0
        process = subprocess.Popen(
            [*COMMAND, str(run_file), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            if not first and metrics.exists() and metrics.stat().st_size:
                first = time.monotonic() - started
            peak, largest = max(peak, resident(tree)), max(largest, largest_of(tree))
            time.sleep(EVERY)
        if process.returncode:
            sys.exit(f"grndist train {' '.join(options)} ended with status {process.returncode}")
        return Took(step_of(metrics), first, time.monotonic() - started, peak, largest)


def largest_of(tree: psutil.Process) -> int:
    sizes = [0]
    with suppress(psutil.NoSuchProcess):
        for process in [tree, *tree.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
    return max(sizes)


def step_of(metrics: Path) -> float:
    """Seconds of a step in the second half of a run; cells_per_second is the mean since the start."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps, rates = np.array([(line["step"], line["cells_per_second"]) for line in lines[len(lines) // 2 :]]).T
    return float(np.polyfit(steps, steps * CELLS / rates, 1)[0])
