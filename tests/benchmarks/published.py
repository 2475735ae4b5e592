"""A data set in the published files' words, made by the script that makes one of K562's size."""

import subprocess
import sys
from pathlib import Path

from tests.test_cli import REPOSITORY

LARGE = 6  # genes perturbed in more than 100 cells
SMALL = {"cells": 3_000, "genes": 40, "controls": 400, "large": LARGE, "small": 4, "umi": 120}


def published(folder: Path, name: str = "K562_small") -> Path:
    """Write NAME.h5ad, NAME.xlsx and NAME.edges.tsv; the h5ad."""
    options = [part for key, value in SMALL.items() for part in (f"--{key}", str(value))]
    maker, path = REPOSITORY / "scripts" / "make_k562_shaped.py", folder / f"{name}.h5ad"
    subprocess.run([sys.executable, maker, path, *options], check=True, env={"PYTHONPATH": str(REPOSITORY)})
    return path
