"""What data-parallel training costs and gains: two workers against one, many as predicted, and Ray against none.

python scripts/bench_scaling.py [--cells 16384] [--rounds 5] [--ray-steps 400] [--ray-rounds 2] [--work DIR]

The store is drawn (`bench_data`): 8,192 genes, 2,000 perturbation labels, so that CaTran's interventional loss is on.
A step takes 500 of the genes. Each worker is a process of one thread on a core of its own; the same training on one and
on two takes turns with the rest, whole epochs at a time, and medians of the rounds are compared. A step is everything:
loading, corruption, the messages, the optimiser. Where other programs run, the ratio of CPU seconds, which leaves out
waiting, says more.

Efficiency at two workers is how many cells a second each of them trains on, relative to one alone. There are two: with
the preset's cells for each worker (`efficiency_2`: the step grows with the workers, as data-parallel training is mostly
run), and with the preset's cells for all together (`same_step_efficiency_2`: each worker has half).

`share of n` is what one of n workers computes, measured alone, and nothing is sent: what is left of it as n grows, all
workers compute alike. `2 beside` are both shares of two at a time, without a message: what two busy cores cost each
other, which no way of sending can give back. Predictions are made of shares, of the bytes, and of stated links
(`bench_scaling_links`).
"""

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import bench_scaling_ray
from bench_scaling_links import WORKERS, Training, figures, predicted
from bench_scaling_steps import ALONE_WAY, Cost, Job, Way, costs
from bench_train import made
from rich.console import Console
from rich.table import Table

TWO, BESIDE, DDP, WEAK = Way(2), Way(2, "beside"), Way(2, "ddp"), Way(2, times=2)
SHARES = {n: Way(n, "share") for n in (2, *WORKERS)}
KIB, MIB = 2**10, 2**20
Costs = dict[Way, Cost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=16_384, help="of the store, a multiple of 8,192")
    parser.add_argument("--rounds", type=int, default=3, help="of CaTran; of GRN-VAE, whose are longer, half as many")
    parser.add_argument("--ray-steps", type=int, default=200, help="of each run that is compared with one through Ray")
    parser.add_argument("--ray-rounds", type=int, default=2, help="0: without Ray")
    parser.add_argument("--work", type=Path, help="where the store stays; a temporary folder if not given")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        store = made(work, args.cells)
        found = {name: measured(name, *given, args.rounds) for name, given in jobs(store).items()}
        trainings = {name: training_of(ways) for name, ways in found.items() if SHARES[2] in ways}
        for table in (of_two(found), of_shares(found), predicted(trainings)):
            Console(width=130).print(table)
        summary = figures_of(found) | figures(trainings)
        if args.ray_rounds:
            print("grndist train, with and without Ray ...", flush=True)
            table, of_ray = bench_scaling_ray.compared(store, args.ray_steps, args.ray_rounds)
            Console(width=130).print(table)
            summary |= of_ray
    print(json.dumps({"figures": summary}))


def jobs(store: Path) -> dict[str, tuple[Job, list[Way]]]:
    """The preset's number of cells a step, all that is asked of it; and a larger one."""
    every = [ALONE_WAY, TWO, WEAK, BESIDE, *SHARES.values()]
    return {
        "catran": (Job(store, "paper", 2048, epochs=4), [*every, DDP]),
        "catran_8192": (Job(store, "paper", 8192, epochs=8), [ALONE_WAY, TWO]),
        "grn_vae": (Job(store, "grn_vae", 64, epochs=2), every),
        "grn_vae_512": (Job(store, "grn_vae", 512, epochs=4), every),
    }


def measured(name: str, job: Job, ways: list[Way], rounds: int) -> Costs:
    print(f"{name}: {job.cells:,} cells a step ...", flush=True)
    return costs(job, ways, rounds if job.preset == "paper" else max(rounds // 2, 1), workers=2)


def of_two(found: dict[str, Costs]) -> Table:
    table = Table(title="one worker and two: the same training, 500 of 8,192 genes a step")
    for column in (
        "training", "1: ms", "2: ms", "same step", "by CPU", "twice the cells", "waiting, ms", "KiB a step",
        "messages", "1: MiB", "2: MiB each",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "training" else "right")
    for name, ways in found.items():
        alone, two = ways[ALONE_WAY], ways[TWO]
        weak = f"{alone.wall / ways[WEAK].wall:.2f}" if WEAK in ways else "-"
        table.add_row(
            *(name, f"{1e3 * alone.wall:.1f}", f"{1e3 * two.wall:.1f}", f"{efficiency(ways):.2f}"),
            *(f"{alone.cpu / (2 * two.cpu):.2f}", weak, f"{1e3 * (two.wall - two.cpu):.1f}"),
            *(f"{two.bytes_sent / KIB:,.0f}", f"{two.messages:.1f}"),
            *(f"{alone.peak_mib:,.0f}", f"{two.peak_mib:,.0f}"),
        )
    return table


def of_shares(found: dict[str, Costs]) -> Table:
    table = Table(title="CPU milliseconds of a step")
    for column in (
        "training",
        "1 worker",
        *(f"share of {n}" for n in SHARES),
        "2 beside",
        "2 workers, each",
        "DDP, each",
    ):
        table.add_column(column, justify="left" if column == "training" else "right")
    for name, ways in found.items():
        columns = [ALONE_WAY, *SHARES.values(), BESIDE, TWO, DDP]
        table.add_row(name, *(f"{1e3 * ways[way].cpu:.1f}" if way in ways else "-" for way in columns))
    return table


def efficiency(ways: Costs) -> float:
    return ways[ALONE_WAY].wall / (2 * ways[TWO].wall)


def training_of(ways: Costs) -> Training:
    """CPU seconds: of a worker of one thread that waits for nobody they are what it takes."""
    shares = {n: ways[way].cpu for n, way in SHARES.items()}
    return Training(ways[ALONE_WAY].cpu, shares, ways[TWO].bytes_sent, ways[TWO].messages)


def figures_of(found: dict[str, Costs]) -> dict[str, float]:
    summary: dict[str, float] = {}
    for name, ways in found.items():
        alone, two = ways[ALONE_WAY], ways[TWO]
        summary |= {
            f"{name}_same_step_efficiency_2": round(efficiency(ways), 3),
            f"{name}_cpu_efficiency_2": round(alone.cpu / (2 * two.cpu), 3),
            f"{name}_step_ms": round(1e3 * alone.wall, 1),
            f"{name}_bytes_per_step": round(two.bytes_sent),
            f"{name}_mib_1": round(alone.peak_mib),
            f"{name}_mib_2": round(two.peak_mib),
        }
        summary |= {f"{name}_efficiency_2": round(alone.wall / ways[WEAK].wall, 3)} if WEAK in ways else {}
        summary |= (
            {f"{name}_beside_efficiency_2": round(alone.wall / (2 * ways[BESIDE].wall), 3)} if BESIDE in ways else {}
        )
        if DDP in ways:
            summary["flat_vs_ddp"] = round(two.wall / ways[DDP].wall, 3)
            summary["flat_vs_ddp_cpu"] = round(two.cpu / ways[DDP].cpu, 3)
    return summary


if __name__ == "__main__":
    main()
