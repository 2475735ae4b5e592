"""`grndist causalbench` on a made-up data set of K562's shape (`make_k562_shaped`): time and memory, start to end.

    python scripts/bench_causalbench.py [--folder FOLDER] [--whole] [--seeds 0] [--model NAME ...]

makes FOLDER/k562.h5ad if it is not there, and runs the command on it as a process, with the filter of the challenge
and four fractions. At the size of K562 (--whole), 160,000 cells x 8,500 genes, that takes more than ten minutes on two
cores; the default is a tenth of the cells and of the perturbations. Memory is the resident set of the process and its
children together, looked at every 50 ms.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_ingest import MIB, measured

MODELS = ["paper", "catran_d", "mean_difference_log", "random"]
SMALLER = {"cells": 16_000, "genes": 8_500, "controls": 2_000, "large": 62, "small": 140}
WHOLE = {"cells": 160_000, "genes": 8_500, "controls": 10_691, "large": 622, "small": 1_435}


def main() -> None:
    """Make the data, run, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for data and results; a temporary one if not given")
    parser.add_argument("--whole", action="store_true", help="the size of K562")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--model", nargs="+", default=MODELS)
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
        bench(given.folder, given)
        return
    with tempfile.TemporaryDirectory(prefix="grndist-bench-") as folder:
        bench(Path(folder), given)


def bench(folder: Path, given: argparse.Namespace) -> None:
    """Measure one run of the command."""
    data, size = folder / "k562.h5ad", WHOLE if given.whole else SMALLER
    if not data.exists():
        maker = Path(__file__).with_name("make_k562_shaped.py")
        options = [part for name, value in size.items() for part in (f"--{name}", str(value))]
        subprocess.run([sys.executable, str(maker), str(data), *options], check=True)
    out = folder / "regimes"
    command = [
        sys.executable, "-m", "grndist.cli", "causalbench", str(data), "--summary", str(data.with_suffix(".xlsx")),
        "--seeds", given.seeds, "--out", str(out),
    ]  # fmt: skip
    peak, wall, cpu = measured([*command, *(part for name in given.model for part in ("--model", name))])
    print((out / "summary.txt").read_text())
    print(
        f"{size['cells']:,} cells x {size['genes']:,} genes: {wall:.0f} s, {cpu:.0f} CPU-s, peak {peak / MIB:,.0f} MiB"
    )
    figures = {"causalbench_seconds": round(wall), "causalbench_cpu_seconds": round(cpu)}
    print(json.dumps({"figures": figures | {"causalbench_peak_mib": round(peak / MIB)}}))


if __name__ == "__main__":
    main()
