"""A run that several workers train, its store, and how to find the workers' processes."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from grndist.config import Tree
from grndist.inference import edges_of_checkpoint
from grndist.runs import RunConfig, load_run
from grndist.training import checkpoint

RUN: Tree = {
    "model": {"kind": "catran", "embedding": 8},
    "training": {
        "steps": 60, "epochs": None, "cells_per_step": 60, "genes_per_step": 8, "streams": 5, "checkpoint_every": 10,
        "log_every": 5, "learning_rate": 1e-4,
    },
    "tracking": {"kind": "none"},
    "workers": {"min": 2, "max": 2, "start_timeout": 120},
}  # fmt: skip


def config_of(folder: Path, store: Path, *overrides: str) -> RunConfig:
    return load_run(run_file(folder, store), list(overrides))


def run_file(folder: Path, store: Path) -> Path:
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump(RUN | {"store": str(store), "runs": str(folder / "runs")}))
    return file


def weights(path: str | Path) -> dict[str, Tensor]:
    return load_file(Path(path) / "weights.safetensors")


def same_bits(one: str | Path, other: str | Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def apart(one: str | Path, other: str | Path) -> float:
    """The largest difference of two networks' weights, relative to the largest weight."""
    tables = [
        edges_of_checkpoint(Path(path)).table.set_index(["regulator", "target"])["weight"].sort_index()
        for path in (one, other)
    ]
    assert tables[0].index.equals(tables[1].index)
    return float((tables[0] - tables[1]).abs().max() / tables[0].abs().max())


def workers_below(process: int) -> list[psutil.Process]:
    """Train workers among the descendants of a process."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def step_of(run: Path) -> int:
    """The step of the newest checkpoint of a run directory; -1 before the first."""
    found = checkpoint.checkpoints(run / "checkpoints")
    return checkpoint.describe(found[-1]).step if found else -1
