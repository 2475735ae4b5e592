"""What each command of the chain costs on one machine, and how that grows when cells or genes double.

python scripts/bench_chain.py [--cells 4000] [--genes 250]

Every command is a process of its own: wall and CPU seconds and peak memory are the operating system's for that process.
Training is one epoch of each model, plain form, on one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--genes", type=int, default=250)
    args = parser.parse_args()
    sizes = [(args.cells, args.genes), (2 * args.cells, args.genes), (args.cells, 2 * args.genes)]
    measured = {size: chain(*size) for size in sizes}

    table = Table()
    table.add_column("command")
    for cells, genes in sizes:
        table.add_column(f"{cells} x {genes}: s wall, s CPU, MiB", justify="right")
    for command in measured[sizes[0]]:
        table.add_row(command, *("{:.1f}, {:.1f}, {:.0f}".format(*measured[size][command]) for size in sizes))
    Console(width=120).print(table)
    figures = {}
    for name, size in zip(("base", "cells_doubled", "genes_doubled"), sizes, strict=True):
        for command, (_, cpu, mebibytes) in measured[size].items():
            figures[f"{command}_cpu_seconds_{name}"] = round(cpu, 2)
            figures[f"{command}_peak_mib_{name}"] = round(mebibytes)
    print(json.dumps({"figures": figures}))


def chain(cells: int, genes: int) -> dict[str, tuple[float, float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "simulate": cost(folder, "simulate", "s.h5ad", "--cells", cells, "--genes", genes),
            "ingest": cost(folder, "ingest", "s.h5ad", "s.zarr"),
        }
        for model, preset in (("catran", "paper"), ("dazzle", "dazzle")):
            Path(folder, f"{preset}.yaml").write_text(
                f"preset: {preset}\nstore: s.zarr\ntraining: {{epochs: 1, threads: 1}}\ntracking: {{kind: none}}\n"
            )
            result[f"train_{model}"] = cost(folder, "train", f"{preset}.yaml")
        result["infer"] = cost(folder, "infer", "runs/dazzle", "--all")
        scored = ("runs/dazzle/edges.parquet", "--reference", "s.network.tsv", "--store", "s.zarr")
        result["evaluate"] = cost(folder, "evaluate", *scored)
        return result


def cost(folder: str, *arguments: object) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, peak MiB of one `grndist` process."""
    started = time.monotonic()
    command = [sys.executable, "-m", "grndist.cli", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
