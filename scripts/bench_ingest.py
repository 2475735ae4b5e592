"""What bringing cells into a store costs, and how it grows with their number: memory, time, space.

python scripts/bench_ingest.py [--cells 50000 100000] [--work DIR] [--threads 2]

Sources are h5ad files of at most 100,000 cells x 8,192 genes, all given to one `grndist ingest`. One file is drawn; the
others are copies of its matrix under other cell names and other labels, because drawing takes longer than ingesting.
Memory is the resident set of the process and its children together, looked at every 50 ms.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import psutil
from bench_data import GENES, write_h5ad, write_tables
from rich.console import Console
from rich.table import Table

CELLS_PER_PART = 100_000
BYTES_PER_CELL = 34_000  # of an h5ad, of what ingest writes on the way, and of the store
EVERY = 0.05  # seconds
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """Of one ingest."""

    peak: int  # bytes
    wall: float  # seconds
    cpu: float
    store: int  # bytes
    source: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[50_000, 100_000], metavar="N")
    parser.add_argument("--work", type=Path, help="a folder to work in; the temporary one if not given")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    sizes = sorted(set(args.cells))
    if sizes[0] < 1:
        parser.error("--cells are positive numbers")
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.work)))
        check_space(work, sizes[-1] * BYTES_PER_CELL)
        costs = {size: ingested(work, size, args.threads) for size in sizes}
    report(costs)


def check_space(work: Path, needed: int) -> None:
    free = shutil.disk_usage(work).free
    if free < needed:
        sys.exit(f"{work}: {needed / 2**30:.0f} GiB are needed and {free / 2**30:.0f} GiB are free; give --work DIR")


def ingested(work: Path, cells: int, threads: int) -> Cost:
    sources, store = parts(work, cells), work / "store.zarr"
    print(f"{cells:,} cells in {len(sources)} files are ingested ...", flush=True)
    command = [sys.executable, "-m", "grndist.cli", "ingest", *map(str, sources), str(store)]
    peak, wall, cpu = measured([*command, "--threads", str(threads)])
    cost = Cost(peak, wall, cpu, bytes_of(store), sum(path.stat().st_size for path in sources))
    shutil.rmtree(store)
    return cost


def parts(work: Path, cells: int) -> list[Path]:
    """Sources of `cells` cells together; whole ones stay for the next size."""
    whole, rest = divmod(cells, CELLS_PER_PART)
    paths = [work / f"part{number}.h5ad" for number in range(whole)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        print(f"{path.name} is {'copied' if number else 'drawn'} ...", flush=True)
        if number:
            copy(paths[0], path, number)
        else:
            write_h5ad(path, CELLS_PER_PART, prefix="part0_")
    if not rest:
        return paths
    path = work / "rest.h5ad"
    print(f"{path.name} is drawn ...", flush=True)
    write_h5ad(path, rest, seed=1, prefix="rest_")
    return [*paths, path]


def copy(first: Path, path: Path, number: int) -> None:
    """The matrix of `first` under other names."""
    shutil.copyfile(first, path)
    with h5py.File(path, "r+") as file:
        del file["obs"], file["var"]
        write_tables(file, CELLS_PER_PART, GENES, number, f"part{number}_")


def measured(command: list[str]) -> tuple[int, float, float]:
    """Peak bytes of the process and its children together, wall seconds, CPU seconds."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    tree = psutil.Process(process.pid)
    while True:
        peak = max(peak, resident(tree))
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(EVERY)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return peak, time.monotonic() - started, used.ru_utime + used.ru_stime


def resident(tree: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        for process in [tree, *tree.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def report(costs: dict[int, Cost]) -> None:
    table = Table(title=f"grndist ingest, {GENES:,} genes")
    table.add_column("cells", justify="right")
    for name in ("peak MiB", "x before", "wall s", "CPU s", "cells/s", "cells/CPU-s", "KiB/cell", "of the h5ad"):
        table.add_column(name, justify="right")
    figures: dict[str, float] = {}
    before = None
    for cells, cost in costs.items():
        per_cell = cost.store / cells / 1024
        growth = "" if before is None else f"{cost.peak / before:.2f}"
        numbers = [f"{cost.peak / MIB:,.0f}", growth, f"{cost.wall:.1f}", f"{cost.cpu:.1f}"]
        rates = [f"{cells / cost.wall:,.0f}", f"{cells / cost.cpu:,.0f}"]
        table.add_row(f"{cells:,}", *numbers, *rates, f"{per_cell:.2f}", f"{cost.store / cost.source:.3f}")
        figures[f"ingest_peak_mib_{cells}"] = round(cost.peak / MIB)
        figures[f"ingest_cells_per_second_{cells}"] = round(cells / cost.wall)
        figures[f"ingest_kib_per_cell_{cells}"] = round(per_cell, 2)
        before = cost.peak
    Console(width=120).print(table)
    print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
