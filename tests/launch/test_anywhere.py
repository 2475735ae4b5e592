"""Trainings that go on where they stand. Workers: test_train."""

from pathlib import Path

import pytest
import yaml

from grndist.launch.anywhere import folder_of, go_on, is_begun
from grndist.runs import RunConfig, RunError, load_run, train_run

TREE = {
    "preset": "dazzle",
    "model": {"width": 8},
    "training": {"epochs": 3, "cells_per_step": 60, "threads": 1},
    "tracking": {"kind": "none"},
}


@pytest.fixture
def run_file(tmp_path: Path, store_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(TREE | {"store": str(store_path), "runs": str(tmp_path)}))
    return file


def weights(config: RunConfig) -> bytes:
    return max((folder_of(config) / "checkpoints").glob("step-*")).joinpath("weights.safetensors").read_bytes()


def test_a_training_is_begun_goes_on_and_is_finished_once(run_file: Path):
    whole, halted = load_run(run_file, ["name=whole"]), load_run(run_file, ["name=halted"])
    assert not is_begun(whole)
    go_on(whole)
    train_run(halted, part=0.4)
    assert is_begun(halted)
    assert weights(halted) != weights(whole)
    go_on(halted)
    assert weights(halted) == weights(whole)
    before = sorted((file, file.stat().st_mtime_ns) for file in (folder_of(whole) / "checkpoints").rglob("*"))
    go_on(whole)
    assert sorted((file, file.stat().st_mtime_ns) for file in (folder_of(whole) / "checkpoints").rglob("*")) == before


def test_what_was_killed_before_it_began_starts_anew(run_file: Path):
    config = load_run(run_file, ["name=killed"])
    folder_of(config).mkdir(parents=True)
    (folder_of(config) / ".lock").write_text("1")
    go_on(config)
    assert is_begun(config)


def test_a_folder_of_something_else_is_refused(run_file: Path):
    config = load_run(run_file, ["name=other"])
    folder_of(config).mkdir(parents=True)
    (folder_of(config) / "thesis.txt").touch()
    with pytest.raises(RunError, match="not a run directory"):
        go_on(config)
    assert [file.name for file in folder_of(config).iterdir()] == ["thesis.txt"]
