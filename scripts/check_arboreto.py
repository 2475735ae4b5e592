"""GENIE3's and GRNBoost2's importances beside those of arboreto's own code, on the same cells and random states.

python scripts/check_arboreto.py [--cells 300] [--genes 30] [--targets 5]

Makes an environment of arboreto 0.1.6 with this environment's NumPy, SciPy and scikit-learn in a temporary folder
(minutes, 0.7 GB), runs `arboreto.core.infer_partial_network` there for some targets, and prints the largest
differences. Exits with 1 where one is above 1e-9.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from grndist.data.simulate import SimulationConfig, simulate
from grndist.evaluation.baselines.trees import boosted_importances, forest_importances

METHODS = {"genie3": ("RF", "RF_KWARGS", forest_importances), "grnboost2": ("GBM", "SGBM_KWARGS", boosted_importances)}
THEIRS = """
import sys
import numpy as np
from arboreto import core
folder, kind, settings, n_targets = sys.argv[1:]
values = np.load(folder + "/values.npy")
names = [f"g{i}" for i in range(values.shape[1])]
for target in range(int(n_targets)):
    core.infer_partial_network(
        kind, getattr(core, settings), values, names, names[target], values[:, target], seed=target
    ).to_csv(f"{folder}/{kind}{target}.csv", index=False)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--genes", type=int, default=30)
    parser.add_argument("--targets", type=int, default=5)
    parser.add_argument("--python", help="of an environment that has arboreto already")
    args = parser.parse_args()
    made = simulate(SimulationConfig(cells=args.cells, genes=args.genes, regulators=args.genes // 3))
    values = np.log1p(made.counts.toarray()).astype(np.float32)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        python = args.python or environment(Path(folder) / "arboreto")
        np.save(Path(folder) / "values.npy", values)
        for method, (kind, settings, ours) in METHODS.items():
            started = time.monotonic()
            subprocess.run([python, "-c", THEIRS, folder, kind, settings, str(args.targets)], check=True)
            figures[f"{method}_their_seconds"] = round(time.monotonic() - started, 1)
            started = time.monotonic()
            differences = [
                compared(values, target, ours, Path(folder) / f"{kind}{target}.csv") for target in range(args.targets)
            ]
            figures[f"{method}_our_seconds"] = round(time.monotonic() - started, 1)
            figures[f"{method}_max_difference"] = max(differences)
            print(f"{method}: {args.targets} targets, largest difference of an importance {max(differences):.3g}")
    print(json.dumps({"figures": figures}))
    return int(max(figures[f"{method}_max_difference"] for method in METHODS) > 1e-9)


def compared(values: np.ndarray, target: int, ours, table: Path) -> float:
    others = np.delete(np.arange(values.shape[1]), target)
    found = np.zeros(values.shape[1])
    found[others] = ours(values[:, others], values[:, target].astype(np.float64), target)
    theirs = np.zeros(values.shape[1])
    listed = pd.read_csv(table, float_precision="round_trip")
    theirs[listed["TF"].str.removeprefix("g").astype(int)] = listed["importance"]
    return float(np.abs(found - theirs).max())


def environment(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    same = [f"{name}=={version(name)}" for name in ("numpy", "scipy", "scikit-learn", "pandas")]
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "arboreto==0.1.6", *same], check=True)
    return str(folder / "bin" / "python")


if __name__ == "__main__":
    sys.exit(main())
