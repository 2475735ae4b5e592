"""GRN-VAE by the number of genes: cost of a step and peak memory, with the exponents that fit them.

python scripts/bench_models.py grn_vae_sizes [--genes 1000 2000 4000 8000] [--steps 3] [--threads 1]

Preset `grn_vae`: 64 cells a step, two RMSprop, one epoch of the networks and one of the adjacency. Each row is a
process of its own, which takes one epoch of either kind to warm up and then two more, each of so many steps; the
expression is drawn, 26 % of it not zero. Half of the steps of a run are of either kind, so the cost of a step is the
mean of both medians. That of the networks is without the first of an epoch, which factorises I - A for all of them;
with a gene subset every step does.

Seconds of the figures are CPU seconds of all threads, the least of the epochs: where other programs run, wall time says
little. Peak memory is above what the process held before there was a model, libraries in use; the memory that a run is
refused by (`memory.bytes_of_step`) is beside it. Exponents are slopes of log-log least squares over whole panels.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bench_peers.turns import memory_kib
from rich.console import Console
from rich.table import Table

from grndist.data.stream.batch import Batch
from grndist.data.stream.plan import gene_subset
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.models.grn_vae.memory import StepSizes, bytes_of_step
from grndist.optim import OptimizerConfig, Optimizers
from grndist.training.loop import State, train

CELLS = 64
NOT_ZERO = 0.26
REGULATORS = 1600
LARGE = 4000  # genes from which a panel is also measured by subsets
EPOCHS = 6  # networks and adjacency in turn, the first two to warm up
KINDS = ("networks", "adjacency")
MIB = 2**20


class Cost(NamedTuple):
    """Of a step of either kind, networks and adjacency, and the peak memory of any."""

    wall: tuple[float, float]
    cpu: tuple[float, float]
    peak_mib: float

    @property
    def seconds(self) -> float:
        """CPU seconds of a step, mean of both kinds."""
        return sum(self.cpu) / 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--genes", type=int, nargs="+", default=[1000, 2000, 4000, 8000])
    parser.add_argument("--steps", type=int, default=3, help="of an epoch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", type=int, nargs=3, metavar=("GENES", "REGULATORS", "A_STEP"), help=argparse.SUPPRESS)


def run(chosen: argparse.Namespace) -> None:
    torch.set_num_threads(chosen.threads)
    if chosen.one:
        print(json.dumps(cost_of(sizes_of(*chosen.one), chosen.steps)))
        return
    found: dict[StepSizes, Cost] = {}
    for sizes in rows(chosen.genes):
        print(f"{named(sizes)} ...", flush=True)
        found[sizes] = cost_in_child(sizes, chosen)
    Console(width=120).print(table_of(found))
    print(json.dumps({"figures": figures_of(found)}))


def rows(panels: list[int]) -> list[StepSizes]:
    """What is measured: whole panels, and the large ones by subsets, the largest with a list of regulators."""
    subsets = [sizes_of(n, n, n // share) for n in panels if n >= LARGE for share in (2, 4)]
    largest = max(panels)
    return [*(sizes_of(n, n, n) for n in panels), *subsets, sizes_of(largest, min(REGULATORS, largest), largest)]


def sizes_of(genes: int, regulators: int, genes_per_step: int) -> StepSizes:
    return StepSizes(genes, regulators, genes_per_step, CELLS)


def cost_in_child(sizes: StepSizes, chosen: argparse.Namespace) -> Cost:
    script = Path(__file__).with_name("bench_models.py")
    one = (sizes.genes, sizes.regulators, sizes.genes_per_step)
    words = [
        sys.executable,
        script,
        "grn_vae_sizes",
        "--steps",
        chosen.steps,
        "--threads",
        chosen.threads,
        "--one",
        *one,
    ]
    out = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
    wall, cpu, peak_mib = json.loads(out)
    return Cost(tuple(wall), tuple(cpu), peak_mib)


def cost_of(sizes: StepSizes, steps: int) -> Cost:
    """Cost of a step in this process."""
    epochs_of(sizes_of(16, 16, 8), 2)  # what libraries take at their first use is no part of a step
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory_kib("VmRSS")
    wall, cpu = epochs_of(sizes, steps)
    return Cost(wall, cpu, (memory_kib("VmHWM") - before) / 1024)


def epochs_of(sizes: StepSizes, steps: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Wall and CPU seconds of a step of the networks and of one of the adjacency."""
    model, optimizer = model_of(sizes), optimizer_config()
    state = State(model, Optimizers(optimizer, model.parameter_groups()))
    marks = []

    def batch_at(step: int) -> Batch:
        batch = batch_of(sizes, *divmod(step, steps))
        marks.append((time.perf_counter(), time.process_time()))
        return batch

    ends = []
    train(state, batch_at, EPOCHS * steps, lambda *_: ends.append((time.perf_counter(), time.process_time())))
    taken = (np.array(ends) - np.array(marks)).reshape(EPOCHS // 2, 2, steps, 2)[1:]  # epochs of a kind, kinds, steps
    of_kinds = (np.median(taken[:, 0, 1:], 1).min(0), np.median(taken[:, 1], 1).min(0))
    wall, cpu = zip(*(kind.tolist() for kind in of_kinds), strict=True)
    return wall, cpu


def model_of(sizes: StepSizes) -> GRNVAE:
    listed = None
    if sizes.regulators < sizes.genes:
        listed = torch.from_numpy(gene_subset(1, 0, 0, sizes.genes, sizes.regulators))
    return GRNVAE(GRNVAEConfig(sparse_delay=0), sizes.genes, regulators=listed)


def optimizer_config() -> OptimizerConfig:
    """The preset's."""
    preset = GRNVAEConfig.run_defaults["training"]
    return OptimizerConfig(**{name: preset[name] for name in preset if name in OptimizerConfig.model_fields})


def batch_of(sizes: StepSizes, epoch: int, step: int) -> Batch:
    rng = np.random.default_rng([epoch, step])
    x = rng.exponential(size=(CELLS, sizes.genes_per_step)).astype(np.float32)
    x *= rng.random(x.shape) < NOT_ZERO
    genes = torch.from_numpy(gene_subset(0, epoch, step, sizes.genes, sizes.genes_per_step))
    nothing = torch.zeros(CELLS, dtype=torch.int64)
    return Batch(torch.from_numpy(x), genes, nothing, nothing, ((0, CELLS),), seed=0, epoch=epoch, step=step)


def table_of(found: dict[StepSizes, Cost]) -> Table:
    of_kinds = [f"{kind}: {what}" for what in ("CPU s", "s") for kind in KINDS]
    table = Table("a step", "CPU s", *of_kinds, "peak MiB", "stated MiB")
    for sizes, cost in found.items():
        stated = bytes_of_step(GRNVAEConfig(), optimizer_config(), sizes).total / MIB
        seconds = (f"{value:.3f}" for value in (cost.seconds, *cost.cpu, *cost.wall))
        table.add_row(named(sizes), *seconds, f"{cost.peak_mib:,.0f}", f"{stated:,.0f}")
    return table


def named(sizes: StepSizes) -> str:
    by = f", {sizes.genes_per_step:,} at once" if sizes.genes_per_step < sizes.genes else ""
    listed = f", {sizes.regulators:,} regulators" if sizes.regulators < sizes.genes else ""
    return f"{sizes.genes:,} genes{by}{listed}"


def figures_of(found: dict[StepSizes, Cost]) -> dict[str, float]:
    whole = {sizes.genes: cost for sizes, cost in found.items() if sizes == sizes_of(sizes.genes, *[sizes.genes] * 2)}
    largest = max(whole)
    shown = {
        "": whole[largest],
        "_quarter": found.get(sizes_of(largest, largest, largest // 4)),
        "_half": found.get(sizes_of(largest, largest, largest // 2)),
        "_regulators": found.get(sizes_of(largest, min(REGULATORS, largest), largest)),
    }
    figures = {
        "cost_exponent": exponent({genes: cost.seconds for genes, cost in whole.items()}),
        "memory_exponent": exponent({genes: cost.peak_mib for genes, cost in whole.items()}),
    }
    for name, cost in shown.items():
        if cost:
            figures |= {
                f"seconds_{largest}{name}": round(cost.seconds, 4),
                f"mib_{largest}{name}": round(cost.peak_mib),
            }
    return figures


def exponent(by_genes: dict[int, float]) -> float:
    """Slope of the logarithms."""
    slope = np.polyfit(np.log(list(by_genes)), np.log(list(by_genes.values())), 1)[0]
    return round(float(slope), 2)
