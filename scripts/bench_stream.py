"""How fast batches come from a store, against its limit and against peers: cells per CPU-second.

python scripts/bench_stream.py [--cells 98304] [--rounds 6] [--work DIR] [--without-peers]

W1 is 2,048 shuffled cells x all 8,192 genes, W2 the same cells x 500 random genes, other ones in every batch; both as
float32, dense, raw counts. Every contender is a process of its own; they take turns, a dozen batches at a time, and
medians over the rounds are compared. CPU time is user and system time of all threads, because wall time on a busy
machine says little. The limit is decoding and densifying alone, from memory, on one thread.

Peers live in environments of their own in --work, made at the first run; whatever is there is used again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench_data import GENES, write_h5ad
from bench_peers.environments import environment
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent / "bench_peers"
WORKLOADS = {"w1": GENES, "w2": 500}
BATCHES = 12  # a round: three windows of one stream
MANY_STREAMS_BATCHES = 16  # one window of each of 16 streams
SLOW_BATCHES = 2
MIB = 2**20
BYTES_PER_CELL = 24_000  # of an h5ad and its store
BYTES_OF_PEERS = 8 * 2**30
ENVIRONMENTS = {
    "scdataset": (("scDataset>=0.3,<0.4", "anndata", "torch"), (3, 11)),
    "annbatch": (("annbatch[zarrs]>=0.3,<0.4",), (3, 12)),
}


@dataclass
class Contender:
    """A way to get batches, and what each round of it cost, by workload."""

    name: str
    script: str
    data: Path
    python: Path = Path(sys.executable)
    options: tuple[str, ...] = ()
    batches: int = BATCHES
    problem: str = ""
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def rates(self, workload: str) -> list[float]:
        return [answer["cells"] / answer["cpu"] for answer in self.rounds.get(workload, [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=98_304, help="at least 16,384")
    parser.add_argument("--rounds", type=int, default=6, help=f"of {BATCHES} batches each, for every contender")
    parser.add_argument("--work", type=Path, help="where data and environments stay; a temporary folder if not given")
    parser.add_argument("--without-peers", action="store_true")
    args = parser.parse_args()
    if args.cells < 16_384 or args.rounds < 1:
        parser.error("--cells is at least 16,384 (two windows) and --rounds at least 1")
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        check_space(work, args.cells * BYTES_PER_CELL + (0 if args.without_peers else BYTES_OF_PEERS))
        h5ad, store = data(work, args.cells)
        contenders = ours(store) + ([] if args.without_peers else peers(work, h5ad, store))
        for workload, genes in WORKLOADS.items():
            print(f"{workload}: {args.rounds} rounds ...", flush=True)
            compete([one for one in contenders if not one.problem], workload, genes, args.rounds, work)
        ratio = bytes_of(store) / h5ad.stat().st_size
    report({contender.name: contender for contender in contenders}, args.cells, ratio)


def check_space(work: Path, needed: int) -> None:
    free = shutil.disk_usage(work).free
    there = bytes_of(work)
    if free + there < needed:
        sys.exit(f"{work}: {needed / 2**30:.0f} GiB are needed and {free / 2**30:.0f} GiB are free; give --work DIR")


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def data(work: Path, cells: int) -> tuple[Path, Path]:
    """The h5ad and its store, made unless they are there."""
    h5ad, store = work / f"{cells}.h5ad", work / f"{cells}.zarr"
    if not store.exists():
        print(f"{cells:,} cells x {GENES:,} genes are drawn and ingested ...", flush=True)
        write_h5ad(h5ad, cells)
        command = [sys.executable, "-m", "grndist.cli", "ingest", str(h5ad), str(store)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return h5ad, store


def ours(store: Path) -> list[Contender]:
    ways = {
        "grndist, inline": ("inline", "none", "1", "shuffled"),
        "grndist": ("dask", "none", "1", "shuffled"),
        "grndist, log1p": ("dask", "log1p", "1", "shuffled"),
        "grndist, balanced": ("dask", "none", "1", "balanced"),
    }
    many = ("grndist, 16 streams", "grndist_store.py", store, Path(sys.executable), ("dask", "none", "16", "shuffled"))
    return [
        Contender("limit", "limit.py", store),
        *(Contender(name, "grndist_store.py", store, options=way) for name, way in ways.items()),
        Contender(*many, MANY_STREAMS_BATCHES),
    ]


def peers(work: Path, h5ad: Path, store: Path) -> list[Contender]:
    print("environments of the peers ...", flush=True)
    found = {name: environment(work / name, *wanted) for name, wanted in ENVIRONMENTS.items()}
    rows = [
        ("scDataset", "scdataset_h5ad.py", h5ad, "scdataset", ("documented",), BATCHES),
        ("scDataset, tuned by us", "scdataset_h5ad.py", h5ad, "scdataset", ("masked",), BATCHES),
        ("annbatch + scipy", "annbatch_store.py", store, "annbatch", (), BATCHES),
        ("AnnData, random rows", "anndata_h5ad.py", h5ad, "scdataset", (), SLOW_BATCHES),
    ]
    for python, about in found.values():
        print(f"  {about}" if python else f"  a peer is {about}")
    return [
        Contender(
            name, script, source, found[env][0] or Path(), options, batches, "" if found[env][0] else found[env][1]
        )
        for name, script, source, env, options, batches in rows
    ]


def compete(contenders: list[Contender], workload: str, genes: int, rounds: int, work: Path) -> None:
    with ExitStack() as stack:
        playing = [(one, stack.enter_context(Process(one, genes, work / "log.txt"))) for one in contenders]
        for number in range(rounds + 1):
            for contender, process in playing:
                if contender.problem:
                    continue
                answer = process.ask(contender.batches)
                if answer is None:
                    contender.problem = f"stopped: {process.last_words()}"
                elif number:  # the first one is for compiling and for memory
                    contender.rounds.setdefault(workload, []).append(answer)


class Process:
    """A running contender."""

    def __init__(self, contender: Contender, genes: int, log: Path) -> None:
        self.log = log.with_name(f"{contender.name} {genes}.log")
        script = [HERE / contender.script, contender.data, str(genes)]
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [contender.python, *script, *contender.options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def ask(self, batches: int) -> dict[str, Any] | None:
        """What `batches` batches cost; None if it has stopped."""
        try:
            self.process.stdin.write(f"{batches}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def last_words(self) -> str:
        return (self.log.read_text().splitlines() or ["without a word"])[-1]

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):  # it has stopped by itself
            self.process.stdin.close()
        self.process.wait()


def report(contenders: dict[str, Contender], cells: int, store_vs_h5ad: float) -> None:
    title = f"{cells:,} cells x {GENES:,} genes, thousands of cells per CPU-second: median (lowest - highest)"
    table = Table(title=title)
    table.add_column("")
    for name in ("W1", "of limit", "peak MiB", "W2", "of limit", "peak MiB"):
        table.add_column(name, justify="right")
    limit = {workload: median(contenders["limit"].rates(workload) or [1]) for workload in WORKLOADS}
    for contender in contenders.values():
        cells_of = [cell for workload in WORKLOADS for cell in row(contender, workload, limit[workload])]
        table.add_row(contender.name, *cells_of)
    console = Console(width=120)
    console.print(table)
    for contender in contenders.values():
        if contender.problem:
            console.print(f"{contender.name}: {contender.problem}", markup=False)
    if any(one.problem for name, one in contenders.items() if name == "limit" or "grndist" in name):
        sys.exit("grndist itself has failed, so there is nothing to compare")
    for name in ("grndist", "grndist, 16 streams"):
        held = max(answer["held"] for answers in contenders[name].rounds.values() for answer in answers)
        print(f"{name}: {held / MIB:.0f} MiB of windows and batches held by the one process")
    print(json.dumps({"figures": figures(contenders) | {"store_vs_h5ad": round(store_vs_h5ad, 3)}}))


def row(contender: Contender, workload: str, limit: float) -> list[str]:
    rates = contender.rates(workload)
    if not rates:
        return ["-", "-", "-"]
    peak = max(answer["peak"] for answer in contender.rounds[workload])
    middle = median(rates)
    low, high = min(rates) / 1000, max(rates) / 1000
    return [f"{middle / 1000:.1f} ({low:.1f} - {high:.1f})", f"{middle / limit:.2f}", f"{peak / MIB:.0f}"]


def figures(contenders: dict[str, Contender]) -> dict[str, float]:
    """Of the default loader, which decodes one window ahead in a Dask task."""
    rate = {
        (name, workload): median(contender.rates(workload))
        for name, contender in contenders.items()
        for workload in WORKLOADS
        if contender.rates(workload)
    }
    against = {
        "of_limit": "limit", "vs_scdataset": "scDataset", "vs_scdataset_tuned": "scDataset, tuned by us",
        "vs_annbatch": "annbatch + scipy", "vs_anndata": "AnnData, random rows",
    }  # fmt: skip
    ratios = {
        f"{workload}_{figure}": rate["grndist", workload] / rate[other, workload]
        for figure, other in against.items()
        for workload in WORKLOADS
        if (other, workload) in rate
    }
    overhead = max(rate["grndist, inline", workload] / rate["grndist", workload] - 1 for workload in WORKLOADS)
    peaks = {
        f"peak_mib_{streams}_streams": max(answer["peak"] for one in contenders[name].rounds.values() for answer in one)
        for streams, name in ((1, "grndist"), (16, "grndist, 16 streams"))
    }
    return (
        {name: round(value, 3) for name, value in ratios.items()}
        | {"dask_overhead": round(overhead, 3)}
        | {name: round(value / MIB) for name, value in peaks.items()}
        | {f"{workload}_cells_per_cpu_second": round(rate["grndist", workload]) for workload in WORKLOADS}
    )


if __name__ == "__main__":
    main()
