"""What training on a whole store costs, end to end: `grndist train` as a process, its libraries and start included.

python scripts/bench_train.py [--store STORE] [--cells 100000] [--runs paper catran_d] [--work DIR]

`paper`: one epoch of CaTran as published (2,048 cells x 500 genes a step). `catran_d`: the whole run, a pass for the
moments and the solution, and `grndist infer` of its 1,000 strongest edges. Without --store, one of --cells cells x
8,192 genes is made first (`bench_data`). Memory is the resident set of the process and its children together.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench_data import write_h5ad
from bench_ingest import measured
from rich.console import Console
from rich.table import Table

from grndist.data.store import open_store

OVERRIDES = {"paper": ["training.epochs=1"], "catran_d": []}
GRNDIST = [sys.executable, "-m", "grndist.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store that is there already")
    parser.add_argument("--cells", type=int, default=100_000, help="of the store that is made")
    parser.add_argument("--runs", nargs="+", default=list(OVERRIDES), choices=list(OVERRIDES))
    parser.add_argument("--work", type=Path, help="where the store stays; a temporary folder if not given")
    args = parser.parse_args()
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        store = open_store(args.store or made(work, args.cells))
        title = f"{store.n_cells:,} cells x {store.n_genes:,} genes"
        table = Table("command", "wall s", "CPU s", "cells/s", "peak MiB", title=title)
        figures: dict[str, float] = {}
        for run in args.runs:
            for name, (peak, wall, cpu) in costs(run, Path(store.url), work).items():
                rate = store.n_cells / wall
                table.add_row(name, f"{wall:.1f}", f"{cpu:.1f}", f"{rate:,.0f}", f"{peak / 2**20:,.0f}")
                key = re.sub(r"\W+", "_", name)
                figures |= {f"{key}_seconds": round(wall, 1), f"{key}_peak_mib": round(peak / 2**20)}
                figures |= {f"{key}_cells_per_second": round(rate)} if name.startswith("train") else {}
    Console(width=110).print(table)
    print(json.dumps({"figures": figures}))


def made(work: Path, cells: int) -> Path:
    store = work / f"{cells}.zarr"
    if not store.exists():
        h5ad = work / f"{cells}.h5ad"
        print(f"{store} is made ...", flush=True)
        write_h5ad(h5ad, cells)
        subprocess.run([*GRNDIST, "ingest", str(h5ad), str(store)], check=True, stdout=subprocess.DEVNULL)
        h5ad.unlink()
    return store


def costs(preset: str, store: Path, work: Path) -> dict[str, tuple[int, float, float]]:
    """Peak bytes, wall and CPU seconds of each command."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run_file = Path(folder) / f"{preset}.yaml"
        run_file.write_text(f"preset: {preset}\nstore: {store}\nruns: {folder}/runs\ntracking: {{kind: none}}\n")
        print(f"grndist train, preset {preset} ...", flush=True)
        found = {f"train {preset}": measured([*GRNDIST, "train", str(run_file), *OVERRIDES[preset]])}
        print(f"grndist infer, preset {preset} ...", flush=True)
        return found | {f"infer {preset}": measured([*GRNDIST, "infer", f"{folder}/runs/{preset}", "-k", "1000"])}


if __name__ == "__main__":
    main()
