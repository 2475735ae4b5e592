"""From a file to a network without anything but logs on this machine: store and run are at URLs."""

from pathlib import Path

import pytest
import yaml

from grndist.storage import open_storage
from tests.test_cli import done, grndist

RUN = {
    "model": {"kind": "catran", "embedding": 4},
    "training": {"epochs": 10, "cells_per_step": 45, "genes_per_step": 10, "checkpoint_every": 5, "log_every": 1},
    "tracking": {"kind": "none"},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    done("simulate small.h5ad --cells 90 --genes 12 --regulators 4 --seed 3")
    return tmp_path


def test_ingest_verify_train_resume_infer_and_evaluate(here: Path, bucket: str):
    store, runs = f"{bucket}/deep/er/small.zarr", f"{bucket}/runs"
    done(f"ingest small.h5ad {store}")
    assert "files are as they were written" in done(f"store verify {store}")
    assert store in done(f"store info {store}")
    assert len(done(f"store head {store} -n 3").splitlines()) == 4

    Path("run.yaml").write_text(yaml.safe_dump(RUN | {"store": store, "runs": runs}))
    assert done("train run.yaml name=whole").startswith("20 steps")
    done("train run.yaml name=half training.epochs=5")
    half = open_storage(f"{runs}/half")
    half.write("config.yaml", half.read("config.yaml").replace(b"epochs: 5", b"epochs: 10"))
    assert "20 steps" in done("train run.yaml name=half --resume")
    weights = "checkpoints/step-00000020/weights.safetensors"
    assert half.read(weights) == open_storage(f"{runs}/whole").read(weights)

    done(f"infer {runs}/half --all")
    assert "edges.parquet" in half.sizes()
    assert "absolute correlation" in done(
        f"evaluate {runs}/half/edges.parquet --reference small.network.tsv --store {store}"
    )
    assert "edges.small.scores.json" in half.sizes()
    assert {path.name for path in here.iterdir()} == {"small.h5ad", "small.network.tsv", "run.yaml"}


def test_a_damaged_object_is_named(here: Path, bucket: str):
    store = f"{bucket}/small.zarr"
    done(f"ingest small.h5ad {store}")
    storage = open_storage(store)
    content = bytearray(storage.read("X/data/c/0"))
    content[10] ^= 1
    storage.write("X/data/c/0", content)
    Path("run.yaml").write_text(yaml.safe_dump(RUN | {"store": store}))
    for line in (f"store verify {store}", "train run.yaml"):
        said = grndist(line)
        assert said.status == 2
        assert "X/data/c/0 is" in said.err
        assert bucket in said.err
        assert "Traceback" not in said.err
