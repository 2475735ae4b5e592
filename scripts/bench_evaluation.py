"""CausalBench's statistics of every edge against the SciPy loop of the published evaluator, and an effect atlas.

python scripts/bench_evaluation.py [--rounds 3] [--edges 300] [--cells 80000] [--genes 8000] [--perturbed 2000]

First 622 genes, 2,100 control cells and groups of unequal size, log-normal about 40 cells: the effects of all pairs
(reading the store and its log scale included), of a network of 1,000 edges (a pass over the cells of its own), and the
published loop over some pairs drawn at random, in turns and in one process. The loop is that of `_evaluate_network` in
causalbench 1.1.2 on its dense float64 matrix. CPU time is that of all threads; each number is the median of the rounds,
and the ratio that of the sums.
Then `grndist effects` on counts as dense as genome-scale Perturb-seq: time and peak RSS of that process, and the time
to score a network of 10,000 edges by look-up, its false omission rate over all pairs. Errors are absolute differences
from SciPy, of p and of the distance, over the pairs of the loop and over pairs of the atlas.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
from bench_data import write_h5ad
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.stats import mannwhitneyu, wasserstein_distance

from grndist.data.ingest.build import write_store
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.store import open_store
from grndist.data.view import View, whole
from grndist.evaluation.interventional import Atlas, CellEffects, OmissionConfig, curve, effects_of, open_atlas
from grndist.machine import available_cpus
from grndist.networks.edges import edge_list

GENES, CONTROLS, NETWORK, LISTED = 622, 2100, 1000, 10_000
MEDIAN_GROUP, SPREAD, LEAST_GROUP, LARGEST_GROUP = 40, 0.6, 3, 400
CHECKED = 300  # pairs of the atlas
CONTROL = "non-targeting"


class Cost(NamedTuple):
    """Seconds, those of all threads, and the peak of memory of a process of its own."""

    wall: float
    cpu: float
    peak_mib: float = np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--edges", type=int, default=300, help="of the SciPy loop, in each round")
    parser.add_argument("--cells", type=int, default=80_000, help="of the atlas")
    parser.add_argument("--genes", type=int, default=8000, help="of the atlas: its targets")
    parser.add_argument("--perturbed", type=int, default=2000, help="of them")
    parser.add_argument("--work", type=Path, help="where data is written; a temporary folder if not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.work) as work:
        figures = against_scipy(Path(work), asked.rounds, asked.edges)
        at_scale, error = atlas_at_scale(Path(work), asked.cells, asked.genes, asked.perturbed)
    figures |= at_scale | {"max_abs_error": max(figures["max_abs_error"], error)}
    print(json.dumps({"figures": {name: float(f"{value:.4g}") for name, value in figures.items()}}))


# --- against the published loop ---


def against_scipy(work: Path, rounds: int, n_edges: int) -> dict[str, float]:
    view, values, cells_of = screen(work / "screen.zarr")
    rng, names = np.random.default_rng(1), view.panel.names
    network = drawn_pairs(rng, names, names, NETWORK)
    effects_of(view), CellEffects(view).test(network)  # compiled and read before the clock starts
    found: dict[str, list[Cost]] = {"all pairs": [], "1,000 edges": [], "published loop": []}
    error = 0.0
    for _ in range(rounds):
        pairs = drawn_pairs(rng, names, names, n_edges)
        atlas, cost = costing(lambda: effects_of(view))
        found["all pairs"].append(cost)
        found["1,000 edges"].append(costing(lambda: CellEffects(view).test(network))[1])
        theirs, cost = costing(lambda pairs=pairs: published_loop(values, cells_of, names, pairs))
        found["published loop"].append(cost)
        error = max(error, largest_difference(atlas, pairs, theirs))
    number = {"all pairs": GENES**2, "1,000 edges": NETWORK, "published loop": n_edges}
    per_edge = {name: sum(cost.cpu for cost in costs) / rounds / number[name] for name, costs in found.items()}
    ratio = {name: per_edge["published loop"] / seconds for name, seconds in per_edge.items()}
    title = (
        f"{GENES} genes, {CONTROLS:,} control cells, {view.n_cells:,} cells; {rounds} rounds; {available_cpus()} CPUs"
    )
    table = Table(title=title)
    for name in ("", "edges", "wall s", "CPU s", "CPU us/edge", "faster"):
        table.add_column(name, justify="right" if name else "left")
    for name, costs in found.items():
        wall, cpu = (median(values) for values in zip(*[(cost.wall, cost.cpu) for cost in costs], strict=True))
        shown = f"{number[name]:,}", f"{wall:.2f}", f"{cpu:.2f}", f"{1e6 * per_edge[name]:.2f}", f"{ratio[name]:.0f} x"
        table.add_row(name, *shown)
    Console().print(table)
    return {"cpu_ratio": ratio["all pairs"], "cpu_ratio_1000_edges": ratio["1,000 edges"], "max_abs_error": error}


def screen(path: Path) -> tuple[View, np.ndarray, dict[str, list[int]]]:
    """A store of log values, most of them zero; its matrix as the evaluator has it; the cells of each label."""
    rng = np.random.default_rng(0)
    names = [f"G{number:03d}" for number in range(GENES)]
    sizes = np.clip(np.round(MEDIAN_GROUP * rng.lognormal(0, SPREAD, GENES)), LEAST_GROUP, LARGEST_GROUP).astype(int)
    labels = np.repeat([CONTROL, *names], [CONTROLS, *sizes])
    shape = len(labels), GENES
    values = rng.gamma(2, 0.5, shape) * (rng.random(shape) < rng.uniform(0.05, 0.9, GENES))
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{number}" for number in range(len(labels))])
    matrix = sparse.csr_matrix(values.astype(np.float32))
    write_store(path, matrix, obs, pd.DataFrame(index=names), "continuous", {"name": "drawn"})
    view = whole(open_store(path))
    stored = np.concatenate([block.toarray() for _, block in view.blocks()]).astype(np.float64)
    in_order = view.obs["perturbation"].astype(str).to_numpy()
    return view, stored, {name: np.flatnonzero(in_order == name).tolist() for name in [CONTROL, *names]}


def published_loop(
    values: np.ndarray, cells_of: dict[str, list[int]], names: tuple[str, ...], pairs: pd.DataFrame
) -> np.ndarray:
    """P and distance of each pair [pairs, 2], as `Evaluator._evaluate_network` gets them."""
    column, found = {name: at for at, name in enumerate(names)}, []
    for parent, child in pairs.itertuples(index=False):
        observational = values[cells_of[CONTROL], column[child]]
        interventional = values[cells_of[parent], column[child]]
        p = mannwhitneyu(observational, interventional)[1]
        found.append((p, wasserstein_distance(observational, interventional)))
    return np.array(found)


def drawn_pairs(
    rng: np.random.Generator, regulators: tuple[str, ...], targets: tuple[str, ...], number: int
) -> pd.DataFrame:
    """Different pairs of two different genes."""
    drawn = rng.permutation(len(regulators) * len(targets))[: 2 * number]
    pairs = [(regulators[at // len(targets)], targets[at % len(targets)]) for at in drawn.tolist()]
    return pd.DataFrame([pair for pair in pairs if pair[0] != pair[1]][:number], columns=["regulator", "target"])


def largest_difference(atlas: Atlas, pairs: pd.DataFrame, theirs: np.ndarray) -> float:
    return float(np.abs(atlas.look_up(pairs, ("p", "wasserstein"))[["p", "wasserstein"]].to_numpy() - theirs).max())


def costing(work: Callable[[], object]) -> tuple:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Cost(time.perf_counter() - wall, time.process_time() - cpu)


# --- an atlas at scale ---


def atlas_at_scale(work: Path, cells: int, genes: int, perturbed: int) -> tuple[dict[str, float], float]:
    source, store, path = work / "counts.h5ad", work / "counts.zarr", work / "atlas.zarr"
    print(f"{cells:,} cells x {genes:,} genes are drawn and ingested ...", flush=True)
    write_h5ad(source, cells, genes, perturbed=perturbed)
    in_process("ingest", source, store)
    source.unlink()
    cost = in_process("effects", store, "-o", path)
    atlas = open_atlas(path)
    rng = np.random.default_rng(2)
    listed = drawn_pairs(rng, tuple(atlas.regulators), tuple(atlas.targets), LISTED)
    edges = edge_list(listed["regulator"], listed["target"], rng.normal(size=len(listed)))
    found, scoring = costing(lambda: curve(open_atlas(path), edges, omission=OmissionConfig(pairs=None)))
    error = atlas_error(atlas, whole(open_store(store)), listed.head(CHECKED))
    pairs = len(atlas.regulators) * len(atlas.targets)
    sizes = f"{atlas.n.min()} to {atlas.n.max()} cells against {atlas.about['n_controls']:,} controls"
    table = Table(title=f"{len(atlas.regulators):,} perturbed genes x {len(atlas.targets):,} targets, {sizes}")
    for name in ("", "wall s", "CPU s", "CPU us/pair", "peak MiB"):
        table.add_column(name, justify="right" if name else "left")
    each = f"{1e6 * cost.cpu / pairs:.2f}"
    table.add_row("grndist effects", f"{cost.wall:.0f}", f"{cost.cpu:.0f}", each, f"{cost.peak_mib:,.0f}")
    table.add_row(f"{LISTED:,} edges scored by look-up", f"{scoring.wall:.1f}", f"{scoring.cpu:.1f}", "", "")
    Console().print(table)
    print(found.drop(columns="reason").to_string(index=False, float_format="{:.4f}".format, line_width=120))
    figures = {"atlas_seconds": cost.wall, "atlas_cpu_seconds": cost.cpu, "atlas_peak_mib": cost.peak_mib}
    return figures, error


def in_process(*arguments: str | Path) -> Cost:
    """A command of grndist, by the process itself: what it took."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "grndist.cli", *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"grndist {' '.join(map(str, arguments))} ended with status {process.returncode}")
    return Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def atlas_error(atlas: Atlas, view: View, pairs: pd.DataFrame) -> float:
    """The largest difference from SciPy over some pairs, on the log values as the view gives them."""
    names = sorted(set(pairs["target"]))
    columns = [view.panel.index[name] for name in names]
    blocks = [
        sparse.csr_matrix(expression(stored, view.totals[rows], view, ExpressionConfig()))[:, columns].toarray()
        for rows, stored in view.whole_rows()
    ]
    labels = view.obs["perturbation"].astype(str).to_numpy()
    cells_of = {name: np.flatnonzero(labels == name).tolist() for name in [CONTROL, *pairs["regulator"].unique()]}
    theirs = published_loop(np.concatenate(blocks).astype(np.float64), cells_of, tuple(names), pairs)
    return largest_difference(atlas, pairs, theirs)


if __name__ == "__main__":
    main()
