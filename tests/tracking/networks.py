"""A folder with a store, a reference and trained runs, and the program, for tests of logged and registered networks."""

import contextlib
from pathlib import Path

import yaml

from tests.test_cli import done

RUN = {"training": {"epochs": 2, "cells_per_step": 30, "checkpoint_every": 2, "log_every": 1}, "store": "small.zarr"}
CATRAN = {"model": {"kind": "catran", "embedding": 4}, **RUN}
DAZZLE = {"preset": "dazzle", **RUN}
DIRECTED = {"preset": "catran_d", "store": "small.zarr"}
UNTRACKED = {"tracking": {"kind": "none"}}


def small_store(folder: Path) -> None:
    with contextlib.chdir(folder):
        done("simulate small.h5ad --cells 90 --genes 12 --regulators 4 --seed 3")
        done("ingest small.h5ad small.zarr")


def trained(folder: Path, name: str, settings: dict, *changes: str) -> Path:
    """A run `name` of a small store in `folder`."""
    with contextlib.chdir(folder):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **settings}))
        done(" ".join([f"train {name}.yaml", *changes]))
        return folder / "runs" / name
