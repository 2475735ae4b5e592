"""Runs trained together: their directories against those of runs trained one by one."""

import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from grndist.data.ingest.build import write_store
from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.runs import Interrupted, RunConfig, RunSummary, load_run, train_run
from grndist.runs.packed import can_pack, pays, train_packed
from grndist.training import checkpoint
from grndist.training.loop import TrainingError
from tests.conftest import genes, small_counts

TREE = {
    "preset": "dazzle",
    "model": {"width": 8, "sparse_delay": 1},
    "training": {
        "epochs": 3, "cells_per_step": 60, "validation": 0.2, "validate_every": 1, "checkpoint_every": 3,
        "log_every": 2, "threads": 1,
    },
    "tracking": {"kind": "none"},
}  # fmt: skip
TRIALS: tuple[tuple[str, ...], ...] = (
    ("training.seed=1",),
    ("training.seed=2", "training.learning_rate=0.001", "model.alpha=20"),
    ("training.seed=3", "model.augmentation=0.2", "training.checkpoint_every=5"),
)
STEPS = 12  # 240 of 300 cells, in three epochs of four steps
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def run_file(tmp_path: Path, store_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(TREE | {"store": str(store_path)}))
    return file


def trials(run_file: Path, runs: str, *overrides: str) -> list[RunConfig]:
    """Runs that differ in seed and settings, below a run root of this name."""
    root = f"runs={run_file.parent / runs}"
    return [load_run(run_file, [root, f"name=trial{number}", *own, *overrides]) for number, own in enumerate(TRIALS)]


def metrics(folder: str | Path) -> list[dict]:
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "cells_per_second"} for line in lines]


def agree(found: str | Path, wanted: str | Path) -> None:
    """Whether two run directories differ by rounding alone, beside their own place and speed."""
    ours, theirs = (sorted(p.relative_to(f) for p in Path(f).rglob("*") if p.is_file()) for f in (found, wanted))
    assert ours == theirs
    for left, right in zip(metrics(found), metrics(wanted), strict=True):
        assert left == pytest.approx(right, rel=1e-5)
    paths = [checkpoint.checkpoints(Path(folder) / "checkpoints") for folder in (found, wanted)]
    for left, right in zip(*paths, strict=True):
        torch.testing.assert_close(checkpoint.load_weights(left), checkpoint.load_weights(right), **CLOSE)
        about, wanted_about = (json.loads((path / "checkpoint.json").read_text()) for path in (left, right))
        assert about["optimizer"] == wanted_about["optimizer"]
        assert about["config"] | {"runs": ""} == wanted_about["config"] | {"runs": ""}
        assert about["looks"] == [pytest.approx(look, rel=1e-5) for look in wanted_about["looks"]]
    ours, theirs = edges_of_run(found).table, edges_of_run(wanted).table
    keys = ["regulator", "target"]
    pd.testing.assert_frame_equal(*(table.sort_values(keys, ignore_index=True) for table in (ours, theirs)), rtol=1e-4)


def test_runs_trained_together_leave_what_runs_one_by_one_leave(run_file: Path):
    configs = trials(run_file, "packed")
    assert can_pack(configs) == ""
    found = train_packed(configs)
    for ours, config in zip(found, trials(run_file, "alone"), strict=True):
        theirs = train_run(config)
        assert isinstance(ours, RunSummary)
        assert (ours.steps, ours.stopped_early, ours.tracking) == (STEPS, "", theirs.tracking)
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
        agree(ours.folder, theirs.folder)
        assert json.loads((Path(ours.folder) / "tracking.json").read_text())["status"] == "FINISHED"


def test_they_are_resumed_together_or_by_themselves(run_file: Path, monkeypatch: pytest.MonkeyPatch):
    original = checkpoint.save

    def save_and_interrupt(folder, state, about):
        if state.step == 6 and "trial0" in str(folder):
            os.kill(os.getpid(), signal.SIGINT)
        return original(folder, state, about)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        with pytest.raises(Interrupted, match=r"stopped at step \d of 12; .*checkpoints.* 2 more runs is saved; go on"):
            train_packed(trials(run_file, "packed"))
    folders = [run_file.parent / "packed" / f"trial{number}" for number in range(3)]
    steps = {checkpoint.describe(checkpoint.latest(folder / "checkpoints")).step for folder in folders}
    assert len(steps) == 1
    assert 6 <= steps.pop() <= 7
    assert [json.loads((folder / "tracking.json").read_text())["status"] for folder in folders] == ["KILLED"] * 3
    first, *others = trials(run_file, "packed")
    train_run(first, resume=True)
    assert [isinstance(one, RunSummary) for one in train_packed(others, resume=True)] == [True, True]
    for folder, config in zip(folders, trials(run_file, "alone"), strict=True):
        agree(folder, train_run(config).folder)


def test_runs_that_stand_at_different_steps_are_resumed(run_file: Path):
    wanted = train_packed(trials(run_file, "whole"))
    found = train_packed(trials(run_file, "packed"))
    for one in found[1:]:
        assert isinstance(one, RunSummary)
        shutil.rmtree(one.checkpoint)
    left = [checkpoint.latest(run_file.parent / "packed" / f"trial{number}" / "checkpoints") for number in range(3)]
    assert [checkpoint.describe(path).step for path in left] == [12, 9, 10]
    for ours, theirs in zip(train_packed(trials(run_file, "packed"), resume=True), wanted, strict=True):
        assert isinstance(ours, RunSummary)
        assert isinstance(theirs, RunSummary)
        assert ours.steps == STEPS
        agree(ours.folder, theirs.folder)


def test_a_loss_that_is_not_finite_is_that_runs_alone(run_file: Path):
    configs = trials(run_file, "packed")
    training = configs[1].training.model_copy(update={"learning_rate": 1e38})
    configs[1] = configs[1].model_copy(update={"training": training})
    found = train_packed(configs)
    assert isinstance(found[1], TrainingError)
    assert "lower training.learning_rate" in str(found[1])
    for number in (0, 2):
        agree(found[number].folder, train_run(trials(run_file, "alone")[number]).folder)  # type: ignore[union-attr]
    status = json.loads((run_file.parent / "packed" / "trial1" / "tracking.json").read_text())["status"]
    assert status == "FAILED"


def test_held_out_cells_may_end_one_before_the_others(run_file: Path):
    changes = ("training.patience=1", "training.epochs=8", "training.learning_rate=0.02")
    found, alone = (
        train_packed(trials(run_file, "packed", *changes)),
        map(train_run, trials(run_file, "alone", *changes)),
    )
    ends = [(one.steps, one.stopped_early[:30]) for one in found if isinstance(one, RunSummary)]
    assert ends == [(one.steps, one.stopped_early[:30]) for one in alone]
    assert len({steps for steps, _ in ends}) > 1


def test_a_run_that_is_there_is_not_lost_by_accident(run_file: Path):
    configs = trials(run_file, "packed")
    before = checkpoint.load_weights(checkpoint.latest(Path(train_run(configs[1]).folder) / "checkpoints"))
    with pytest.raises(UserError, match=r"trial1 exists already; go on with --resume"):
        train_packed(configs)
    assert not (run_file.parent / "packed" / "trial2").exists()
    found = train_packed(trials(run_file, "packed", "training.epochs=1"), overwrite=True)
    after = checkpoint.load_weights(Path(found[1].checkpoint))  # type: ignore[union-attr]
    assert not torch.equal(before["weight"], after["weight"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.cells_per_step=30"], "training.cells_per_step is 60 and 30"),
        (["genes.exclude=[g2]"], "genes.exclude is [] and ['g2']"),
        (["model.width=16"], "model.width is 8 and 16"),
        (["model.augmentation=0", "model.classifier_weight=0"], "model.augmentation is 0.1 and 0.0"),
        (["training.optimizer=rmsprop"], "training.optimizer is adam and rmsprop"),
        (["training.validation=null"], "training.validation is 0.2 and None"),
    ],
)
def test_why_runs_do_not_go_together(run_file: Path, overrides: list[str], words: str):
    one, two, _ = trials(run_file, "packed")
    other = load_run(run_file, ["name=other", *overrides])
    assert can_pack([one, two, other]) == words
    with pytest.raises(UserError, match=r"these runs cannot be trained together: .*; train them one by one"):
        train_packed([one, other])
    assert not (run_file.parent / "packed").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.form=plain"], "model.form=plain has no stacked form"),
        (["model.solver=iterative"], "model.solver=iterative has no stacked form"),
        (["preset=deepsem", "model.augmentation=0"], "model.prior=networks has no stacked form"),
        (["model.augmentation=auto"], "model.augmentation=auto is chosen by pilots of one run"),
        (["training.sampling=per_perturbation"], "training.sampling=per_perturbation: a step may have other numbers"),
        (["training.genes_per_step=8"], "training.genes_per_step=8: a step has other genes with another seed"),
        (["training.genes_per_step=12"], ""),
        (["workers=2"], "workers train one run at a time"),
        (["training.device=cuda"], "training.device=cuda has no stacked form"),
    ],
)
def test_what_is_not_trained_together(run_file: Path, overrides: list[str], words: str):
    found = can_pack([load_run(run_file, [f"training.seed={seed}", f"name=s{seed}", *overrides]) for seed in range(2)])
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_catran_d_has_no_stacked_form(tmp_path: Path, store_path: Path):
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump({"preset": "catran_d", "store": str(store_path)}))
    found = can_pack([load_run(file, [f"name=s{seed}"]) for seed in range(2)])
    assert found == "model.kind=catran_d has no stacked form"


@pytest.mark.parametrize(
    ("preset", "n_genes", "n_runs", "cells", "wanted"),
    [
        ("dazzle", 200, 8, 64, True),
        ("dazzle", 200, 2, 64, False),
        ("dazzle", 12, 8, 64, False),
        ("dazzle", 200, 8, 256, False),
        ("paper", 200, 8, 64, False),
    ],
)
def test_runs_are_packed_by_default_where_it_was_measured_to_pay(
    tmp_path: Path, preset: str, n_genes: int, n_runs: int, cells: int, wanted: bool
):
    counts, obs = small_counts(n_genes=n_genes)
    write_store(tmp_path / "s.zarr", counts, obs, genes(n_genes), "counts", {})
    file = tmp_path / "runs.yaml"
    file.write_text(yaml.safe_dump({"preset": preset, "store": str(tmp_path / "s.zarr")}))
    overrides = [f"training.cells_per_step={cells}"]
    configs = [load_run(file, [*overrides, f"name=s{seed}", f"training.seed={seed}"]) for seed in range(n_runs)]
    assert can_pack(configs) == ""
    assert pays(configs) == wanted


def test_one_run_is_not_several(run_file: Path):
    one, two, _ = trials(run_file, "packed")
    words = "it takes two runs or more, with directories of their own"
    assert can_pack([one]) == words
    assert can_pack([one, two, one]) == words
