"""CaTran-D through a run: what it learns from, what is refused, and a resumed run's bits."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from grndist.config import ConfigError
from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.runs import RunSummary, load_run, train_run
from grndist.runs.learning import resolved
from grndist.training import checkpoint


@pytest.fixture
def run_file(tmp_path: Path, store_path: Path) -> Path:
    tree = {
        "preset": "catran_d", "store": str(store_path), "runs": str(tmp_path / "runs"), "tracking": {"kind": "none"},
        "model": {"embedding": 4, "heads": 2},
        "training": {"steps": 12, "cells_per_step": 50, "checkpoint_every": 5, "log_every": 1},
    }  # fmt: skip
    path = tmp_path / "d.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run(run_file: Path, *overrides: str, **how: bool) -> RunSummary:
    return train_run(load_run(run_file, list(overrides)), **how)


def weights(summary: RunSummary) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(Path(summary.checkpoint))


def test_the_full_form_is_solved_in_one_step(run_file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "grndist")
    summary = run(run_file, "model.form=full")
    assert "training: from the second moments of 300 cells (one pass over them), solved" in caplog.text
    settings = yaml.safe_load((Path(summary.folder) / "config.yaml").read_text())
    assert (settings["training"]["source"], settings["training"]["steps"], summary.steps) == ("moments", 1, 1)
    assert summary.losses["prediction"] < 1
    edges = edges_of_run(summary.folder, k=3)
    first = edges.table.iloc[0]
    assert (first["regulator"], first["target"]) == ("g1", "g5")  # the fixture trebles g5 where g1 is gone
    assert first["weight"] < 0
    assert edges.signed


def test_a_finished_run_has_nothing_left_to_do(run_file: Path):
    before = weights(run(run_file))
    again = run(run_file, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in weights(again).items())


@pytest.mark.parametrize(
    "settings", [["model.form=bilinear"], ["model.form=attention"], ["model.start=svd"], ["training.source=cells"]]
)
def test_a_resumed_run_ends_with_the_same_bits(run_file: Path, settings: list[str]):
    settings = [*settings, "training.threads=1"]
    summary = run(run_file, *settings)
    straight = weights(summary)
    newest = Path(summary.checkpoint)
    for file in sorted(newest.iterdir()):
        file.unlink()
    newest.rmdir()
    assert checkpoint.latest(newest.parent).name == "step-00000010"
    resumed = weights(run(run_file, *settings, resume=True))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_moments_of_gene_subsets_train(run_file: Path):
    summary = run(run_file, "model.form=bilinear", "training.genes_per_step=5")
    assert summary.steps == 12
    assert np.isfinite(summary.losses["loss"])


def test_a_panel_too_large_for_moments_is_trained_by_mini_batches(run_file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "grndist")
    summary = run(run_file, "training.moments_memory=1e-9")
    assert "training: 12 steps, mini-batches of 50 cells" in caplog.text
    settings = yaml.safe_load((Path(summary.folder) / "config.yaml").read_text())
    assert (settings["training"]["source"], settings["training"]["genes_per_step"]) == ("cells", 12)


def test_epochs_ask_for_cells(run_file: Path):
    summary = run(run_file, "training.epochs=2", "training.steps=null")
    assert summary.steps == 2 * 6


def test_what_is_decided_does_not_depend_on_when(run_file: Path):
    once = resolved(load_run(run_file, []), 300)
    assert resolved(once, 300) == once
    large = resolved(load_run(run_file, []), 50_000)
    assert (large.training.source, large.training.genes_per_step, large.training.steps) == ("cells", 2000, 12 * 25)
    assert resolved(large, 50_000) == large


def test_perturbed_genes_that_were_not_measured_regulate(run_file: Path):
    edges = edges_of_run(run(run_file).folder)
    assert "elsewhere" in set(edges.table["regulator"])
    assert "elsewhere" not in set(edges.table["target"])
    without = edges_of_run(run(run_file, "model.unmeasured=false", "name=without").folder)
    assert "elsewhere" not in set(without.table["regulator"])


def test_cells_that_are_all_controls_give_partial_correlations(run_file: Path):
    summary = run(run_file, "cells.where=is_control", "training.source=moments")
    edges = edges_of_run(summary.folder)
    assert len(edges) == 12 * 11
    assert edges.table["weight"].abs().max() < 1
    store = open_store(load_run(run_file, []).store)
    controls = int((store.perturbed == -1).sum())
    assert len(weights(summary)["effect"]) == 0
    assert 0 < controls < 300


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.form=full", "training.source=cells"], "model.form=full is solved from moments, which take"),
        (["model.form=full", "training.moments_memory=1e-9"], "raise the memory, leave out epochs and source"),
        (
            ["training.source=moments", "training.moments_memory=1e-9"],
            "training.moments_memory is 1e-09; raise it",
        ),
        (
            ["model.form=bilinear", "training.source=moments", "training.epochs=3", "training.steps=null"],
            "training.source=moments has no epochs",
        ),
        (["training.source=moments", "model.own_perturbation=masked"], "with these settings learns from cells"),
        (["expression.zscore=all"], "expression.zscore is 'all', but moments need values"),
        (["expression.cell_minmax=true"], "expression.cell_minmax is True, but moments need values"),
    ],
)
def test_what_cannot_be_had_is_refused_before_it_starts(run_file: Path, overrides: list[str], words: str):
    with pytest.raises(UserError, match=re.escape(words)):
        run(run_file, *overrides)
    assert not (run_file.parent / "runs" / "d" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.epochs=3"], "epochs=3 and steps=12; give one of the two, and null for the other"),
        (["training.steps=null"], "epochs=None and steps=None; give one of the two"),
        (["training.precision=bf16"], "precision=bf16 is for GPUs; set device=cuda, or precision=float32"),
        (["model.gain=0"], "model.gain: Input should be greater than 0"),
    ],
)
def test_settings_that_do_not_go_together_are_named(run_file: Path, overrides: list[str], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_run(run_file, overrides)
