"""The moments pass of CaTran-D against the bare product of its dense blocks.

python scripts/bench_models.py catran_d [--cells 32768 24576] [--genes 2048 8192] [--rounds 3] [--work DIR]

One side is everything: read, decode, make dense, log, centre, Q^T Q and the sums by label, from a store on disk. The
other is float32 X.T @ X alone, of the same cells, as blocks that are dense and in memory already. Three forms of it
take turns with the pass, all with the same threads: PyTorch's, NumPy's of a matrix and itself (which notices the
symmetry, computes one half and copies the other), and NumPy's of two different matrices.
The figures compare medians of the rounds with the fastest of the three, and of the two that compute the whole product.
CPU time is that of all threads; where other programs run, it says more than wall time does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from bench_data import write_h5ad
from rich.console import Console
from rich.table import Table

from grndist.data.moments import InOrder, sums
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import perturbations_of
from grndist.data.store import open_store
from grndist.data.stream.loader import Loader
from grndist.data.view import View, whole
from grndist.machine import available_cpus

CONFIG = ExpressionConfig()
PASS = "moments pass"
Product = Callable[[np.ndarray, np.ndarray, np.ndarray], object]  # of a block, memory as large, and the result
PRODUCTS: dict[str, Product] = {
    "PyTorch X.T @ X": lambda x, _, out: torch.mm(*map(torch.from_numpy, (x.T, x)), out=torch.from_numpy(out)),
    "NumPy X.T @ X": lambda x, _, out: np.matmul(x.T, x, out=out),
    "NumPy X.T @ Y": lambda x, y, out: np.matmul(x.T, y, out=out),
}
WHOLE = [name for name in PRODUCTS if name != "NumPy X.T @ X"]  # those that do not halve it


class Took(NamedTuple):
    """Seconds, and those of all threads together."""

    wall: float
    cpu: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--genes", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--cells", type=int, nargs="+", default=[32_768, 24_576], help="for each number of genes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where the stores stay; a temporary folder if not given")


def run(chosen: argparse.Namespace) -> None:
    torch.set_num_threads(available_cpus())
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        work = chosen.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        for n_genes, n_cells in zip(chosen.genes, chosen.cells, strict=True):
            print(f"{n_cells:,} cells x {n_genes:,} genes, {chosen.rounds} rounds ...", flush=True)
            view = whole(open_store(store(work, n_cells, n_genes)))
            figures |= report(measure(view, chosen.rounds), view)
    print(json.dumps({"figures": figures}))


def store(work: Path, n_cells: int, n_genes: int) -> Path:
    """The path of a store, made unless it is there."""
    h5ad, path = work / f"{n_cells}x{n_genes}.h5ad", work / f"{n_cells}x{n_genes}.zarr"
    if not path.exists():
        write_h5ad(h5ad, n_cells, n_genes)
        command = [sys.executable, "-m", "grndist.cli", "ingest", str(h5ad), str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def measure(view: View, rounds: int) -> dict[str, list[Took]]:
    """What each contender took in each round; the first round, which compiles, is not in it."""
    perturbations = perturbations_of(view)
    plan = InOrder(view.n_cells, view.n_genes)
    loader = Loader(view, plan, CONFIG, ahead=False)
    blocks = [loader.batch_at(step).expression.numpy() for step in range(plan.steps_per_epoch)]
    other = np.ones_like(blocks[0])
    out = np.empty((view.n_genes, view.n_genes), dtype=np.float32)

    def bare(name: str) -> None:
        for block in blocks:
            PRODUCTS[name](block, other[: len(block)], out)

    contenders = {name: partial(bare, name) for name in PRODUCTS} | {PASS: partial(sums, view, CONFIG, perturbations)}
    took: dict[str, list[Took]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            took[name] += [Took(time.perf_counter() - wall, time.process_time() - cpu)] if number else []
    return took


def report(took: dict[str, list[Took]], view: View) -> dict[str, float]:
    """Print a table; return the figures of this number of genes."""
    seconds = {name: Took(*map(median, zip(*rounds, strict=True))) for name, rounds in took.items()}
    table = Table(title=f"{view.n_cells:,} cells x {view.n_genes:,} genes, {100 * view.store.density:.0f} % not zero")
    for name in ("", "cells/s: median (lowest - highest)", "pass / this", "cells/CPU-s", "pass / this"):
        table.add_column(name, justify="right" if name else "left")
    for name, rounds in took.items():
        own, wall = seconds[name], [one.wall for one in rounds]
        middle, low, high = (view.n_cells / value for value in (own.wall, max(wall), min(wall)))
        ratio = [f"{mine / ours:.2f}" for mine, ours in zip(own, seconds[PASS], strict=True)]
        rates = (f"{middle:,.0f} ({low:,.0f} - {high:,.0f})", f"{view.n_cells / own.cpu:,.0f}")
        table.add_row(name, rates[0], ratio[0], rates[1], ratio[1])
    Console(width=100).print(table)
    figures = {"moments_cells_per_second": view.n_cells / seconds[PASS].wall}
    for name, others in (("moments_ratio", list(PRODUCTS)), ("moments_ratio_whole_product", WHOLE)):
        figures[name] = min(seconds[other].wall for other in others) / seconds[PASS].wall
        figures[f"{name}_cpu"] = min(seconds[other].cpu for other in others) / seconds[PASS].cpu
    return {f"{name}_{view.n_genes}": round(value, 3) for name, value in figures.items()}
