"""GRN-VAE against the published one, grn-dazzle 0.0.2, with the same settings.

python scripts/bench_models.py grn_vae [--rounds 4] [--threads 2] [--work DIR] [--data-dir DIR] [--without-mdc]

Both sides take the package's settings: two RMSprop that alternate, one epoch of the networks and two of the adjacency,
batches of 64, augmentation of 10 % in both kinds of epoch, loss on non-zero entries, sparse loss added.

Steps, at 910 genes x 758 cells and 5,000 x 2,600 (drawn): each side is a process of its own, and they take turns. A
round is three epochs cut to two steps each, so both kinds of epoch come in the proportion they have in a run; the
first round is for warming up. The best rounds are compared, because other work on the machine can only add. Where
cores are busy, threads that wait for each other add most: use --threads 1 there (twice as long).
Whole runs of 120 epochs on mDC (BEELINE, 821 genes x 383 cells), and how much of them brings the early precision
(STRING, DAZZLE's definition) to 95 % of what the package ends with.

A time ratio is the package's by ours, in CPU seconds of all threads and, `_wall`, in seconds; a memory ratio is ours by
the package's, of the peak above what the process held before with its libraries in use. The package's array of cells
is among what was held, our store is not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from bench_moments import store as drawn_store
from bench_peers import turns
from bench_peers.environments import environment
from rich.console import Console
from rich.table import Table

from grndist.data.ingest import IngestConfig, ingest
from grndist.data.store import open_store
from grndist.evaluation.evaluate import DAZZLE, candidates_of, expression_of
from grndist.evaluation.references import Reference, read_reference

HERE = Path(__file__).parent / "bench_peers"
PACKAGE = ("grn-dazzle>=0.0.2,<0.0.3",)
CELLS = {910: 758, 5000: 2600}  # by genes, as in the paper
MDC = "beeline_mDC_TFs500"
STEPS = turns.EPOCHS * turns.BATCHES  # of a round
EPOCHS, EVERY = 120, 10  # of a run; between two of its adjacencies
REACHED = 0.95
SAME = ("grn_vae_package",)


class Cost(NamedTuple):
    """Of a step or a run: seconds, CPU seconds, peak memory."""

    wall: float
    cpu: float
    peak_mib: float


class Run(NamedTuple):
    """A whole run: its cost, early precision at its end, epochs until the level that is compared."""

    cost: Cost
    precision: float
    epochs: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=4, help=f"of {STEPS} steps, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--genes", type=int, nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--work", type=Path, help="where data and the package stay; a temporary folder if not given")
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--without-mdc", action="store_true", help="leave out the whole runs, which need --data-dir")


def run(chosen: argparse.Namespace) -> None:
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        work = (chosen.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        work.mkdir(parents=True, exist_ok=True)
        python, about = environment(work / "grn-dazzle", PACKAGE, (3, 10))
        if python is None:
            sys.exit(f"grn-dazzle is {about}")
        print(about, flush=True)
        for genes in chosen.genes:
            figures |= steps(drawn_store(work, CELLS[genes], genes), python, chosen)
        if not chosen.without_mdc:
            figures |= whole_runs(work, python, chosen)
    print(json.dumps({"figures": figures}))


def steps(store: Path, python: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """Figures of one size, after turns of both sides."""
    found, rounds = open_store(store), str(chosen.rounds + 1)
    size = f"{found.n_genes:,} genes x {found.n_cells:,} cells"
    print(f"{size}: {rounds} rounds ...", flush=True)
    left = ours(store, chosen.threads, "steps", rounds, *SAME, "model.sparse_delay=0")
    with left as mine, package(python, store, chosen.threads, "steps", rounds) as theirs:
        both = [(mine.round(), theirs.round()) for _ in range(int(rounds))][1:]
    costs = [best(side) for side in zip(*both, strict=True)]
    table = Table(size, "s a step", "CPU s a step", "peak MiB")
    for name, cost in zip(("grndist", "grn-dazzle"), costs, strict=True):
        table.add_row(name, f"{cost.wall:.4f}", f"{cost.cpu:.4f}", f"{cost.peak_mib:,.0f}")
    Console(width=120).print(table)
    return ratios(*costs, found.n_genes)


def best(rounds: Sequence[Cost]) -> Cost:
    """The cost of a step in the best rounds, and the highest peak."""
    walls, cpus, peaks = zip(*rounds, strict=True)
    return Cost(min(walls) / STEPS, min(cpus) / STEPS, max(peaks))


def ratios(mine: Cost, theirs: Cost, genes: int) -> dict[str, float]:
    values = {
        "time_ratio": theirs.cpu / mine.cpu,
        "memory_ratio": mine.peak_mib / theirs.peak_mib,
    }
    figures = {f"{name}_{genes}": round(value, 3) for name, value in values.items()}
    return figures | {f"time_ratio_{genes}_wall": round(theirs.wall / mine.wall, 3)}


def whole_runs(work: Path, python: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """Figures of runs on mDC: ours with the package's settings and as DAZZLE, and the package's."""
    store, kept = mdc(work, chosen.data_dir), work / "adjacencies.npy"
    reference = read_reference(chosen.data_dir / MDC / "STRING" / "BL--network.csv")
    genes = open_store(store).panel.names
    sides = {
        "grndist": partial(ours, store, chosen.threads, "run", str(kept), *SAME),
        "grn-dazzle": partial(package, python, store, chosen.threads, "run", str(kept)),
        "grndist, DAZZLE": partial(ours, store, chosen.threads, "run", str(kept), "dazzle"),
    }
    costs, courses = {}, {}
    for name, begin in sides.items():
        print(f"{name}: a whole run on mDC ...", flush=True)
        with begin() as side:
            costs[name] = side.round()
        courses[name] = early_precisions(np.load(kept), genes, reference)
    level = REACHED * courses["grn-dazzle"][-1]
    runs = {name: Run(cost, courses[name][-1], epochs_to(level, courses[name])) for name, cost in costs.items()}
    Console(width=120).print(table_of_runs(runs))
    mine, theirs = runs["grndist"], runs["grn-dazzle"]
    to_level = {name: run.cost.cpu * run.epochs / EPOCHS for name, run in runs.items()}
    return ratios(mine.cost, theirs.cost, len(genes)) | {
        f"time_ratio_{len(genes)}_to_epr": round(to_level["grn-dazzle"] / to_level["grndist"], 3),
        f"time_ratio_{len(genes)}_to_epr_dazzle": round(to_level["grn-dazzle"] / to_level["grndist, DAZZLE"], 3),
        "epr": round(mine.precision, 3),
        "epr_package": round(theirs.precision, 3),
    }


def table_of_runs(runs: dict[str, Run]) -> Table:
    columns = ("", "s", "CPU s", "peak MiB", "EPR", "epochs to EPR", "CPU s to EPR")
    table = Table(*columns, title=f"{EPOCHS} epochs of mDC; to {REACHED:.0%} of the package's EPR")
    for name, (cost, precision, epochs) in runs.items():
        to_level = f"{cost.cpu * epochs / EPOCHS:.1f}"
        seconds = (f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{cost.peak_mib:,.0f}")
        table.add_row(name, *seconds, f"{precision:.3f}", str(epochs), to_level)
    return table


def epochs_to(level: float, course: Sequence[float]) -> int:
    """Epochs until the early precision first was so high: 1, 11, 21 ... or all of them."""
    reached = (EVERY * at + 1 for at, value in enumerate(course[:-1]) if value >= level)
    return next(reached, EPOCHS)


def early_precisions(adjacencies: np.ndarray, genes: Sequence[str], reference: Reference) -> list[float]:
    """The early precision ratio of each adjacency [.., genes, genes] in DAZZLE's definition."""
    given, panel = reference.table, set(genes)
    named = set(given["regulator"]) | set(given["target"])
    candidates = candidates_of(panel & set(given["regulator"]), panel & named, "TF x genes")
    is_true = candidates.place(given, np.ones(len(given), dtype=bool))
    at = pd.Index(genes)
    block = np.ix_(at.get_indexer(candidates.regulators), at.get_indexer(candidates.genes))
    scores = (np.abs(adjacency[block])[candidates.allowed] for adjacency in adjacencies)
    return [DAZZLE.measure(score, is_true)["EPR"] for score in scores]


def mdc(work: Path, data: Path) -> Path:
    """The store of mDC, made unless it is there."""
    store = work / "mdc.zarr"
    if not store.exists():
        ingest(data / MDC / "ExpressionData.csv", store, IngestConfig(orientation="genes_in_rows"))
    return store


class Side:
    """A contender in a process of its own, which answers for one round after the other."""

    def __init__(self, command: Sequence[object], threads: int) -> None:
        self.name = Path(str(command[1])).stem
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )

    def round(self) -> Cost:
        with suppress(BrokenPipeError):  # it has stopped by itself
            print(file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} has stopped; its last words are above")
        return Cost(**json.loads(line))

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def ours(store: Path, threads: int, *what: str) -> Side:
    return Side([sys.executable, HERE / "grndist_vae.py", store, threads, *what], threads)


def package(python: Path, store: Path, threads: int, *what: str) -> Side:
    """It gets the same expression as an array, after the same transform."""
    array = store.with_suffix(".npy")
    if not array.exists():
        np.save(array, np.concatenate(list(expression_of(open_store(store)).blocks())))
    return Side([python, HERE / "grn_dazzle.py", array, threads, *what], threads)
