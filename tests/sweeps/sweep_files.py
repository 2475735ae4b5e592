"""Sweep files over a small store, and trials as they would be written down."""

from pathlib import Path

import yaml

from grndist.config import Tree, merge
from grndist.sweeps.config import Sweep, load_sweep
from grndist.sweeps.ledger import Look, Trial

RUN: Tree = {
    "preset": "paper",
    "model": {"embedding": 4},
    "training": {"epochs": None, "steps": 8, "cells_per_step": 60, "genes_per_step": 8, "checkpoint_every": 2},
    "tracking": {"kind": "none"},
}
SPACE: Tree = {
    "model.embedding": {"choice": [2, 4, 8]},
    "model.hidden": {"uniform": [0.2, 0.9]},
    "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
}


def reference(folder: Path) -> Path:
    """A network among the small store's genes."""
    file = folder / "network.tsv"
    file.write_text("regulator\ttarget\n" + "".join(f"g{a}\tg{b}\n" for a, b in [(1, 5), (3, 7), (1, 2), (3, 4)]))
    return file


def sweep_file(folder: Path, store: Path, **changes: object) -> Path:
    file = folder / "s.yaml"
    own = changes.get("run", {})
    run = {} if isinstance(own, dict) and "preset" in own else RUN
    tree: Tree = {
        "sweeps": str(folder / "sweeps"),
        "run": run | {"store": str(store), "runs": str(folder / "runs")},
        "space": SPACE,
        "budget": {"trials": 6},
        "objectives": [{"kind": "reference", "file": str(reference(folder)), "measure": "auprc_ratio"}],
        "confirm": 0,
    }
    space = {"space": changes["space"]} if "space" in changes else {}
    file.write_text(yaml.safe_dump(merge(tree, changes) | space))
    return file


def sweep_of(folder: Path, store: Path, **changes: object) -> Sweep:
    return load_sweep(sweep_file(folder, store, **changes), {})


def finished(sweep: Sweep, number: int, value: float, settings: Tree | None = None) -> Trial:
    name = sweep.config.goal.name
    return Trial(number, settings or {}, "finished", [Look(1.0, {name: [value]})], ended=1e9 + number)
