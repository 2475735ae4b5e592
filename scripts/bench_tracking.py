"""What tracking costs a step: with the server up, down, and without tracking.

python scripts/bench_tracking.py [--rounds 5] [--seconds 5] [--log-every 10] [--silent]

The steps are real: CaTran (128 cells a step) and GRN-VAE as in the quickstart, on its simulated cells, one thread, with
their lines in metrics.jsonl. The ways take turns, and each is compared with no tracking in the same round; what begins
and ends a run does not count. Ratios are medians over the rounds, and the figures the larger of the two models'. CPU is
that of the whole process, with the threads that write and send. --silent adds a server that accepts and never answers.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from grndist.runs import load_run
from grndist.runs.config import RunConfig
from grndist.runs.folder import metrics_file, tracking
from grndist.runs.learning import learning, resolved
from grndist.runs.steps import Stepping
from grndist.runs.train import cells_of
from grndist.tracking import Tracker
from grndist.workers import ALONE

GRNDIST = [sys.executable, "-m", "grndist.cli"]
MODELS = {"catran": ["training.cells_per_step=128"], "grn_vae": []}
STEPS_TO_TRY = 200  # from which the number of steps of a turn is worked out
SECONDS_TO_START = 120


class Cost(NamedTuple):
    """Of a step, in milliseconds."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of steps in a turn, about")
    parser.add_argument("--log-every", type=int, default=10, help="steps; the default of a run")
    parser.add_argument("--silent", action="store_true", help="also a server that never answers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made(work)
        ways = {
            "without": "",
            "up": stack.enter_context(server(work)),
            "down": f"http://127.0.0.1:{free_port()}",
        }
        if args.silent:
            ways["silent"] = stack.enter_context(silent_server())
        table = Table("model", "way", "wall ms", "CPU ms", "wall ratio", "CPU ratio", title="a step")
        figures: dict[str, float] = {}
        for model in MODELS:
            costs = taken_in_turns(model, ways, work, args)
            for way in ways:
                ratios = [median(a / b for a, b in zip(turn(costs, way, n), turn(costs, "without", n))) for n in (0, 1)]  # noqa: B905
                wall, cpu = (median(turn(costs, way, n)) for n in (0, 1))
                table.add_row(model, way, f"{wall:.3f}", f"{cpu:.3f}", f"{ratios[0]:.3f}", f"{ratios[1]:.3f}")
                if way != "without":
                    key = f"server_{way}_ratio"
                    figures[key] = max(figures.get(key, 0.0), round(ratios[0], 3))
                    figures[f"{model}_{way}_cpu_ratio"] = round(ratios[1], 3)
    Console(width=100).print(table)
    print(json.dumps({"figures": figures}))


def turn(costs: dict[str, list[Cost]], way: str, number: int) -> list[float]:
    return [cost[number] for cost in costs[way]]


def made(work: Path) -> None:
    """The quickstart's cells."""
    for command in ("simulate sim.h5ad --cells 3000 --genes 200 --seed 0", "ingest sim.h5ad sim.zarr"):
        subprocess.run([*GRNDIST, *command.split()], cwd=work, check=True, stdout=subprocess.DEVNULL)


def taken_in_turns(model: str, ways: dict[str, str], work: Path, args: argparse.Namespace) -> dict[str, list[Cost]]:
    """Costs of every way, a round after the other; the order changes with the round."""
    steps = STEPS_TO_TRY
    first = steps_taken(settings(model, steps, "", work, args.log_every), work)
    steps = max(STEPS_TO_TRY, int(1000 * args.seconds / first.wall))
    print(f"{model}: {steps:,} steps a turn", flush=True)
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    for number in range(args.rounds):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for way in order:
            costs[way].append(steps_taken(settings(model, steps, ways[way], work, args.log_every), work))
    return costs


def settings(model: str, steps: int, uri: str, work: Path, log_every: int) -> RunConfig:
    changes = [
        f"store={work / 'sim.zarr'}", f"runs={work / 'runs'}", f"training.steps={steps}", "training.epochs=null",
        "training.threads=1", f"training.log_every={log_every}", *MODELS[model],
    ]  # fmt: skip
    track = [f"tracking.uri={uri}", "tracking.log_network=false"] if uri else ["tracking.kind=none"]
    return load_run(Path("configs") / f"quickstart_{model}.yaml", [*changes, *track])


def steps_taken(config: RunConfig, work: Path) -> Cost:
    """Take all steps of a run; the clock runs from the first to the last."""
    view, held_out = cells_of(config)
    config = resolved(config, view)
    learns = learning(config, view, held_out)
    with (
        tempfile.TemporaryDirectory(dir=work) as folder,
        tracking(Path(folder), config, view) as tracker,
        metrics_file(Path(folder), 0) as write,
    ):
        wait_for_the_beginning(tracker, Path(folder))
        logs = (write, tracker.log_metrics)
        stepping = Stepping(
            config, learns, ALONE, lambda state: None, logs, lambda news: None, lambda: False, time.monotonic()
        )
        wall, cpu = time.perf_counter(), time.process_time()
        stepping.go()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(1000 * wall / learns.steps, 1000 * cpu / learns.steps)


def wait_for_the_beginning(tracker: Tracker, folder: Path) -> None:
    """Until the settings have arrived, or it is known that they will not."""
    spool = folder / "tracking-spool"
    while tracker.run_id and not (spool / "sent.json").exists():
        time.sleep(0.1)
    while tracker.run_id and is_waiting(spool):
        time.sleep(0.1)


def is_waiting(spool: Path) -> bool:
    sent: int = json.loads((spool / "sent.json").read_text())["upto"]
    return sent < (spool / "entries.jsonl").stat().st_size


@contextmanager
def server(work: Path) -> Iterator[str]:
    """The URI of an MLflow server with SQLite."""
    uri = f"http://127.0.0.1:{(port := free_port())}"
    command = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{work}/server.db", "--artifacts-destination", f"{work}/artifacts"]
    with (work / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *command],
            cwd=work, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
    try:
        end = time.monotonic() + SECONDS_TO_START
        while not answers(uri):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server does not start:\n{(work / 'server.log').read_text()}")
            time.sleep(0.5)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(uri: str) -> bool:
    try:
        urllib.request.urlopen(f"{uri}/health", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@contextmanager
def silent_server() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def free_port() -> int:
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        port: int = once.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
