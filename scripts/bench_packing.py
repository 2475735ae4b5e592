"""What it gains to train replicates together, their parameters stacked, rather than one after another in one process.

python scripts/bench_packing.py [--replicates 8] [--rounds 9] [--genes 200] [--threads 2] [--kinds grn_vae catran]

The data are the quickstart's: 3,000 simulated cells of 200 genes, ingested into a store; --genes gives other numbers of
genes. The runs are configs/quickstart_KIND.yaml with other seeds, and each reads the batches of its own seed.

Rounds of a few steps take turns: of every replicate by itself (`training.loop.train`), and of all together
(`training.together.train_together`). A ratio is the time one by one divided by that together, the median over the
rounds. Peak memory is measured in a process of its own for each way, above what it held when kernels were compiled and
libraries loaded; one by one, a replicate is forgotten before the next begins. `packing_ratio` is that of GRN-VAE, the
only family that is packed by default (`runs.packed.pays`, which asks for 1.3).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from bench_peers.turns import memory_kib
from rich.console import Console
from rich.table import Table

from grndist.runs import RunConfig, load_run
from grndist.runs.learning import Learning, learning, resolved
from grndist.runs.train import cells_of
from grndist.training.loop import train
from grndist.training.together import Member, train_together

CONFIGS = Path(__file__).parent.parent / "configs"
GRNDIST = [sys.executable, "-m", "grndist.cli"]
QUICKSTART = 200  # genes
STEPS = {"grn_vae": 8, "catran": 2}  # of a round
STEPS_OF_PEAK = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--genes", type=int, nargs="+", default=[QUICKSTART])
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of PyTorch; all cores if not given"
    )
    parser.add_argument("--kinds", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument(
        "--peak", nargs=3, metavar=("WAY", "KIND", "STORE"), help=argparse.SUPPRESS
    )  # in a child process
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        way, kind, store = args.peak
        print(peak_mib(way, kind, Path(store), args.replicates))
        return
    table = Table(
        *("a step of one replicate", "one by one ms", "together ms", "ratio", "peak MiB one by one", "together"),
        title=f"{args.replicates} replicates, {args.threads} threads; packing_ratio is that of grn_vae",
    )
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for genes in args.genes:
            store = made(Path(folder), genes)
            for kind in args.kinds:
                figures |= compared(kind, store, genes, args, table)
    if "packing_ratio_grn_vae" in figures:
        figures["packing_ratio"] = figures["packing_ratio_grn_vae"]
    Console(width=110).print(table)
    print(json.dumps({"figures": figures}))


def made(folder: Path, genes: int) -> Path:
    """The store of the quickstart, or of that with another number of genes."""
    h5ad, store = folder / f"{genes}.h5ad", folder / f"{genes}.zarr"
    for command in (
        ["simulate", str(h5ad), "--cells", "3000", "--genes", str(genes), "--seed", "0"],
        ["ingest", str(h5ad), str(store)],
    ):
        subprocess.run([*GRNDIST, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return store


def replicates(kind: str, store: Path, number: int) -> list[Learning]:
    """Runs of the quickstart that differ in their seed, before their first step."""
    configs = [run_of(kind, store, seed) for seed in range(number)]
    view, _ = cells_of(configs[0])
    return [learning(resolved(config, view), view) for config in configs]


def run_of(kind: str, store: Path, seed: int) -> RunConfig:
    overrides = [f"store={store}", f"runs={store.parent}", f"training.seed={seed}", f"name={kind}{seed}"]
    return load_run(CONFIGS / f"quickstart_{kind}.yaml", overrides)


def one_by_one(runs: list[Learning], steps: int) -> None:
    for run in runs:
        train(run.state, run.batch_at, run.state.step + steps, lambda *news: None)


def together(runs: list[Learning], steps: int) -> None:
    members = [Member(run.state, run.batch_at, lambda *news: None, lambda error: None) for run in runs]
    train_together(members, runs[0].state.step + steps)


WAYS = {"one by one": one_by_one, "together": together}


def compared(kind: str, store: Path, genes: int, args: argparse.Namespace, table: Table) -> dict[str, float]:
    runs = {way: replicates(kind, store, args.replicates) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(args.rounds + 1):
        for way, take in WAYS.items():
            begun = time.perf_counter()
            take(runs[way], STEPS[kind])
            seconds[way].append((time.perf_counter() - begun) / STEPS[kind] / args.replicates)
    alone, packed = (found[1:] for found in seconds.values())  # the first warms up
    ratio = median(one / other for one, other in zip(alone, packed, strict=True))
    peaks = {way: peak_in_child(way, kind, store, args) for way in WAYS}
    table.add_row(
        *(f"{kind}, {genes} genes", f"{1e3 * median(alone):.1f}", f"{1e3 * median(packed):.1f}", f"{ratio:.2f}"),
        *(f"{peak:.0f}" for peak in peaks.values()),
    )
    name = kind if genes == QUICKSTART else f"{kind}_{genes}"
    found = {f"peak_mib_{way.replace(' ', '_')}_{name}": round(peak) for way, peak in peaks.items()}
    return {f"packing_ratio_{name}": round(ratio, 2)} | found


def peak_in_child(way: str, kind: str, store: Path, args: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--peak", way, kind, str(store)]
    options = ["--replicates", str(args.replicates), "--threads", str(args.threads)]
    return float(subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout)


def peak_mib(way: str, kind: str, store: Path, number: int) -> float:
    WAYS[way](replicates(kind, store, 1), STEPS_OF_PEAK)
    before = memory_kib("VmRSS")
    if way == "together":
        together(replicates(kind, store, number), STEPS_OF_PEAK)
    else:
        for _ in range(number):
            one_by_one(replicates(kind, store, 1), STEPS_OF_PEAK)
    return (memory_kib("VmHWM") - before) / 1024


if __name__ == "__main__":
    main()
