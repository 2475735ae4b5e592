"""What it gains to train replicates together, their parameters stacked, rather than one after another in one process.

python scripts/bench_packing.py [--replicates 8] [--rounds 5] [--steps 8] [--genes 200] [--threads 2]

The data are the quickstart's: 3,000 simulated cells, ingested into a store; --genes gives other numbers of genes too.
The replicates differ in their seed, and each reads the batches of its own.

`grn_vae` (configs/quickstart_grn_vae.yaml): rounds of --steps steps take turns, of every replicate by itself
(`training.loop.train`) and of all together (`training.together`); the ratio is the median over the rounds. Peak memory
is measured in a process of its own for each way, above what it held before the first step.

`catran` (configs/quickstart_catran.yaml) has no stacked form. Its figure is a bound: the time of a step divided by that
of the parts which every replicate needs for itself, whose inner loops are compiled or BLAS already (corruption, the two
products with cells, the SiLU head, the sums of errors; all of them forward and backward). Stacking can take away the
rest at most, and `runs.packed.pays` asks for 1.3.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from bench_peers.turns import memory_kib
from rich.console import Console
from rich.table import Table

from grndist.models.affine import Moments
from grndist.models.catran import CaTran
from grndist.models.catran.corruption import corrupt
from grndist.models.catran.error_sums import error_sums
from grndist.models.catran.fast import Cells, affine_part, output
from grndist.models.silu_head import silu_head
from grndist.objectives import Groups
from grndist.runs import RunConfig, load_run
from grndist.runs.learning import Learning, learning, resolved
from grndist.runs.train import cells_of
from grndist.training.loop import train
from grndist.training.together import Member, train_together
from grndist.workers import ALONE

CONFIGS = Path(__file__).parent.parent / "configs"
GRNDIST = [sys.executable, "-m", "grndist.cli"]
QUICKSTART = 200  # genes
STEPS_OF_PEAK = 5
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--genes", type=int, nargs="+", default=[QUICKSTART])
    parser.add_argument("--threads", type=int, help="of PyTorch; all cores if not given")
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "STORE"), help=argparse.SUPPRESS)  # in a child process
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.peak:
        print(peak_mib(args.peak[0], Path(args.peak[1]), args.replicates))
        return
    table = Table(
        "GRN-VAE", "one by one ms", "together ms", "ratio", "peak MiB one by one", "together",
        title=f"a step of one replicate, {args.replicates} of them, {torch.get_num_threads()} threads",
    )  # fmt: skip
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for genes in args.genes:
            store = made(Path(folder), genes)
            figures |= grn_vae(store, genes, args, table)
            if genes == QUICKSTART:
                bounds, figures["packing_ratio_catran"] = catran(store, args)
    Console(width=110).print(table)
    if "packing_ratio_catran" in figures:
        Console(width=110).print(bounds)
        figures["packing_ratio"] = figures["packing_ratio_grn_vae"]
        print("packing_ratio is GRN-VAE's, the family that is packed by default; CaTran's is a bound.")
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


def grn_vae(store: Path, genes: int, args: argparse.Namespace, table: Table) -> dict[str, float]:
    runs = {way: replicates("grn_vae", store, args.replicates) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(args.rounds + 1):
        for way, take in WAYS.items():
            begun = time.perf_counter()
            take(runs[way], args.steps)
            seconds[way].append((time.perf_counter() - begun) / args.steps / args.replicates)
    ratio = median(alone / packed for alone, packed in zip(*(found[1:] for found in seconds.values()), strict=True))
    peaks = [peak_in_child(way, store, args) for way in WAYS]
    table.add_row(
        f"{genes} genes", *(f"{1e3 * median(found[1:]):.1f}" for found in seconds.values()), f"{ratio:.2f}",
        *(f"{peak:.0f}" for peak in peaks),
    )  # fmt: skip
    name = "grn_vae" if genes == QUICKSTART else f"grn_vae_{genes}"
    peak_figures = {
        f"peak_mib_{way.replace(' ', '_')}_{name}": round(peak) for way, peak in zip(WAYS, peaks, strict=True)
    }
    return {f"packing_ratio_{name}": round(ratio, 2)} | peak_figures


def peak_in_child(way: str, store: Path, args: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--peak", way, str(store), "--replicates", str(args.replicates)]
    threads = ["--threads", str(torch.get_num_threads())]
    return float(subprocess.run([*command, *threads], check=True, capture_output=True, text=True).stdout)


def peak_mib(way: str, store: Path, number: int) -> float:
    """Peak memory of some steps in this process; one by one, a replicate is forgotten before the next begins."""
    WAYS[way](replicates("grn_vae", store, 2), STEPS_OF_PEAK)  # what libraries and kernels take when first used
    before = memory_kib("VmRSS")
    if way == "together":
        together(replicates("grn_vae", store, number), STEPS_OF_PEAK)
    else:
        for _ in range(number):
            one_by_one(replicates("grn_vae", store, 1), STEPS_OF_PEAK)
    return (memory_kib("VmHWM") - before) / 1024


def catran(store: Path, args: argparse.Namespace) -> tuple[Table, float]:
    """The most that stacking could gain, and from what it follows."""
    (run,) = replicates("catran", store, 1)
    parts = own_parts(run)
    whole = cost(lambda: one_by_one([run], 1), args.rounds)
    costs = {name: cost(part, args.rounds) for name, part in parts.items()}
    bound = whole / sum(costs.values())
    table = Table("CaTran: parts that every replicate needs for itself", "ms", "share")
    for name, seconds in (costs | {"a whole step": whole}).items():
        table.add_row(name, f"{1e3 * seconds:.1f}", f"{seconds / whole:.0%}")
    table.add_row("stacking gains at most", f"{bound:.2f} times", "")
    return table, round(bound, 2)


def own_parts(run: Learning) -> dict[str, Step]:
    model, batch = run.state.model, run.batch_at(0)
    assert isinstance(model, CaTran)
    config, genes = model.config, batch.genes
    hidden, corrupted = corrupt(batch, config.hidden, config.corruption)
    moments, centred = Moments.of(corrupted)
    cells = Cells.of(corrupted, batch.perturbed, len(model.embedding), ALONE)
    groups = Groups.of(batch.perturbed, genes, cells.by_label)
    field, mixing = affine_part(model, moments, model.embedding[genes], model.attention(genes))
    mixing = mixing.detach().requires_grad_()
    y = (centred @ mixing.T).detach().requires_grad_()
    head = [tensor.detach().requires_grad_() for tensor in (field.level, field.slope, *output(model))]
    predicted = silu_head(y, *head).detach().requires_grad_()
    upstream = torch.ones_like(predicted)

    def sums() -> None:
        found = error_sums(predicted, batch.expression, hidden, groups.row, groups.n_rows, config.huber_delta)
        (found.hidden + found.visible).backward()

    return {
        "corruption": lambda: corrupt(batch, config.hidden, config.corruption),
        "moments of the corrupted batch": lambda: Moments.of(corrupted),
        "product with the attention": lambda: (centred @ mixing.T).backward(upstream),
        "SiLU head": lambda: silu_head(y, *head).backward(upstream),
        "sums of errors": sums,
    }


def cost(step: Step, rounds: int) -> float:
    """Seconds: the least of some calls, since other work on the machine can only add."""
    seconds = []
    for _ in range(4 * rounds + 1):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
