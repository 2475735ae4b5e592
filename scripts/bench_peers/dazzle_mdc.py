"""The published package on BEELINE's mDC: one of its two modes, one seed, one thread; writes the signed adjacency.

python dazzle_mdc.py EXPRESSION_CSV dazzle|grn_vae SEED OUT.npy

Prints the seconds of its training. Needs the environment of grn-dazzle (`bench_vae.PACKAGE`).
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dazzle import DEFAULT_DAZZLE_CONFIGS, runDAZZLE

ALTERNATING = {"number_of_opt": 2, "K1": 1, "K2": 2, "delayed_steps_on_sparse": 30, "chi": 0}
MODES: dict[str, dict[str, Any]] = {"dazzle": {}, "grn_vae": ALTERNATING}


def settings(mode: str) -> dict[str, Any]:
    """The package's own, and for GRN-VAE its loop of two optimisers with the paper's delay."""
    return DEFAULT_DAZZLE_CONFIGS | MODES[mode] | {"cuda": False}


def main(expression: Path, mode: str, seed: int, out: Path) -> None:
    table = pd.read_csv(expression, index_col=0)  # genes in rows
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # the package draws from it
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # its logs go where it runs
        wall, cpu = time.perf_counter(), time.process_time()
        model, _ = runDAZZLE(table.to_numpy().T, settings(mode), progress_bar=False)
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        os.chdir("/")
    np.save(out, model.get_adj())
    print(json.dumps({"mode": mode, "seed": seed} | seconds), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]).resolve())
