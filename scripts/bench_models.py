"""What a training step of a model costs, against the plain way to compute it.

python scripts/bench_models.py catran [--rounds 5] [--threads 2]
python scripts/bench_models.py catran_d [--rounds 3] [--work DIR]
python scripts/bench_models.py grn_vae [--rounds 4] [--threads 2] [--work DIR] [--data-dir DIR] [--without-mdc]
python scripts/bench_models.py grn_vae_sizes [--genes 1000 2000 4000 8000] [--steps 3] [--threads 1]

`catran`: the fast form against the plain one (nn.Linear, BatchNorm1d and matrix products on contiguous tensors), at
2,048 cells x 500 and x 200 genes, d = 40, preset `paper` on simulated counts. A step is corruption, forward, backward
and Lion. Both forms take turns in one process; the best rounds are compared, because other work on the machine can only
add. Peak memory is measured in a process of its own for each form, above what it held with the data before a step.

`catran_d`: its pass over the cells against the bare product of their dense blocks (`bench_moments`).

`grn_vae`: against the published package, in steps and in whole runs (`bench_vae`).

`grn_vae_sizes`: a step's cost and memory by the number of genes (`bench_vae_sizes`).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import bench_moments
import bench_vae
import bench_vae_sizes
import numpy as np
import torch
from bench_peers.turns import memory_kib
from lion_pytorch import Lion
from rich.console import Console
from rich.table import Table

from grndist.data.stream.batch import Batch
from grndist.models.affine import Moments
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.catran.corruption import corrupt
from grndist.models.catran.fast import Cells, affine_part, losses, output
from grndist.models.silu_head import silu_head
from grndist.workers import ALONE

CELLS = 2048
SUBSETS = (500, 200)
PANELS = (1_000, 4_000, 16_000)
FAST_STEPS = 20  # a round of the fast form; one step of the plain one
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("catran", help="CaTran: fast form against plain form")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--peak", nargs=2, metavar=("FORM", "GENES"), help=argparse.SUPPRESS)  # in a child process
    command.set_defaults(run=catran)
    command = commands.add_parser("catran_d", help="CaTran-D: the moments pass against the bare product")
    bench_moments.add_arguments(command)
    command.set_defaults(run=bench_moments.run)
    command = commands.add_parser("grn_vae", help="GRN-VAE: against grn-dazzle, steps and whole runs")
    bench_vae.add_arguments(command)
    command.set_defaults(run=bench_vae.run)
    command = commands.add_parser("grn_vae_sizes", help="GRN-VAE: a step's cost and memory by the number of genes")
    bench_vae_sizes.add_arguments(command)
    command.set_defaults(run=bench_vae_sizes.run)
    args = parser.parse_args()
    args.run(args)


def catran(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    if args.peak:
        print(peak_mib(args.peak[0], int(args.peak[1])))
        return
    figures: dict[str, float] = {}
    table = Table("step", "plain s", "fast s", "ratio", "plain MiB", "fast MiB", "ratio", "fast CPU s", "fast cells/s")
    for genes in SUBSETS:
        figures |= against_plain(genes, args, table)
    panels, by_panel = panel_costs(args.rounds)
    for shown in (table, parts_of_a_step(SUBSETS[0]), panels):
        Console(width=120).print(shown)
    print(json.dumps({"figures": figures | by_panel}))


def against_plain(genes: int, args: argparse.Namespace, table: Table) -> dict[str, float]:
    fast, plain = (step_of(form, genes) for form in ("fast", "plain"))
    fast_costs, plain_costs = [], []
    cost(fast, 3)
    for _ in range(args.rounds):
        plain_costs.append(cost(plain, 1))
        fast_costs.append(cost(fast, FAST_STEPS))
    slow, _ = best(plain_costs)
    wall, cpu = best(fast_costs)
    memory = {form: peak_in_child(form, genes, args.threads) for form in ("plain", "fast")}
    table.add_row(
        *(f"{CELLS:,} x {genes}", f"{slow:.2f}", f"{wall:.4f}", f"{slow / wall:.1f}"),
        *(f"{memory['plain']:.0f}", f"{memory['fast']:.0f}", f"{memory['fast'] / memory['plain']:.3f}"),
        *(f"{cpu:.3f}", f"{CELLS / wall:,.0f}"),
    )
    figures = {
        "time_ratio": round(slow / wall, 1),
        "memory_ratio": round(memory["fast"] / memory["plain"], 4),
        "cpu_seconds": round(cpu, 4),
        "cells_per_second": round(CELLS / wall),
    }
    return {f"{name}_{genes}": value for name, value in figures.items()}


def best(costs: list[tuple[float, float]]) -> tuple[float, float]:
    return min(wall for wall, _ in costs), min(cpu for _, cpu in costs)


def cost(step: Step, times: int) -> tuple[float, float]:
    """Wall and CPU seconds of one step: medians over some of them."""
    costs = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        costs.append((time.perf_counter() - wall, time.process_time() - cpu))
    return median(wall for wall, _ in costs), median(cpu for _, cpu in costs)


def batch_of(genes: int, panel: int) -> Batch:
    """Counts of a random gene subset of the panel; half of the cells have one of its genes perturbed."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 2.0, size=genes), size=(CELLS, genes)).astype(np.float32)
    perturbed = np.where(rng.random(CELLS) < 0.5, -1, rng.integers(0, panel, CELLS))
    return Batch(
        expression=torch.from_numpy(counts),
        genes=torch.from_numpy(np.sort(rng.choice(panel, genes, replace=False))),
        perturbed=torch.from_numpy(perturbed),
        labels=torch.from_numpy(np.unique(perturbed, return_inverse=True)[1]),
        shares=((0, CELLS),),
        seed=0,
        epoch=0,
        step=0,
    )


def step_of(form: str, genes: int, panel: int = 0) -> Step:
    """One step of training over a panel of so many genes, or of only those of the batch."""
    batch, model = batch_of(genes, panel or genes), CaTran(CaTranConfig(form=form), panel or genes)
    optimizer = Lion(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.05)

    def step() -> None:
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()

    return step


def peak_in_child(form: str, genes: int, threads: int) -> float:
    """Peak memory of a process that takes a few steps of this form, above the data; MiB."""
    command = [sys.executable, __file__, "catran", "--threads", str(threads), "--peak", form, str(genes)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_mib(form: str, genes: int) -> float:
    step_of("fast", 16)()  # what libraries take at their first use, compiled kernels above all, is no part of a step
    step = step_of(form, genes)
    before = memory_kib("VmRSS")
    for _ in range(2):
        step()
    return (memory_kib("VmHWM") - before) / 1024


def parts_of_a_step(genes: int) -> Table:
    """Where the time of a fast step goes: each part alone, forward and backward."""
    batch, model = batch_of(genes, genes), CaTran(CaTranConfig(), genes)
    config = model.config
    hidden, corrupted = corrupt(batch, config.hidden, config.corruption)
    moments, centred = Moments.of(corrupted)
    cells = Cells.of(corrupted, batch.perturbed, genes, ALONE)
    attention = model.attention(batch.genes).detach().requires_grad_()
    field, mixing = affine_part(model, moments, model.embedding[batch.genes], attention)
    y = (centred @ mixing.T).detach().requires_grad_()
    weight, bias = output(model)
    head = [tensor.detach().requires_grad_() for tensor in (field.level, field.slope, weight, bias)]
    predicted = silu_head(y, *head).detach().requires_grad_()
    parts: dict[str, Step] = {
        "corruption": lambda: corrupt(batch, config.hidden, config.corruption),
        "moments of the corrupted batch": lambda: Moments.of(corrupted),
        "attention and affine fields": lambda: scalar(
            *affine_part(model, moments, model.embedding[batch.genes], model.attention(batch.genes))
        ).backward(),
        "product with the attention": lambda: (centred @ mixing.T).backward(y.detach(), retain_graph=True),
        "SiLU head": lambda: silu_head(y, *head).sum().backward(),
        "losses": lambda: sum(losses(config, predicted, batch, hidden, attention, cells, ALONE).values()).backward(),
    }
    mixing = mixing.detach().requires_grad_()  # the product's own gradient only
    whole = best([cost(step_of("fast", genes), FAST_STEPS) for _ in range(3)])[0]
    table = Table(f"part of a step at {genes} genes", "ms", "share")
    total = 0.0
    for name, part in parts.items():
        part()
        seconds = best([cost(part, FAST_STEPS) for _ in range(3)])[0]
        total += seconds
        table.add_row(name, f"{1e3 * seconds:.1f}", f"{seconds / whole:.0%}")
    table.add_row("optimiser and the rest", f"{1e3 * (whole - total):.1f}", f"{1 - total / whole:.0%}")
    table.add_row("a whole step", f"{1e3 * whole:.1f}", "100%")
    return table


def scalar(field, mixing: torch.Tensor) -> torch.Tensor:
    """Something to differentiate that depends on all of it."""
    return field.level.sum() + field.slope.sum() + mixing.sum()


def panel_costs(rounds: int) -> tuple[Table, dict[str, float]]:
    """Steps on 500 genes as the panel they come from grows; the sizes take turns."""
    genes = SUBSETS[0]
    steps = {panel: step_of("fast", genes, panel) for panel in PANELS}
    costs: dict[int, list[tuple[float, float]]] = {panel: [] for panel in PANELS}
    for number in range(2 * rounds + 1):
        for panel, step in steps.items():
            costs[panel] += [cost(step, FAST_STEPS // 2)] if number else []
    table = Table("genes in the panel", "s a step", f"against {PANELS[0]:,}")
    walls = {panel: best(found)[0] for panel, found in costs.items()}
    for panel, wall in walls.items():
        table.add_row(f"{panel:,}", f"{wall:.4f}", f"{wall / walls[PANELS[0]]:.2f}")
    figures = {f"panel_ratio_{panel}": round(wall / walls[PANELS[0]], 3) for panel, wall in walls.items()}
    return table, figures


if __name__ == "__main__":
    main()
