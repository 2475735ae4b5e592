"""CaTran-D through a run: what it learns from, what is refused, and a resumed run's bits."""

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from grndist.config import ConfigError
from grndist.data.store import Store, open_store
from grndist.data.stream.batch import Batch
from grndist.data.stream.loader import Loader
from grndist.data.view import whole
from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.runs import Interrupted, RunSummary, load_run, train_run
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


def test_a_panel_whose_moments_fit_is_solved_in_one_step(run_file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "grndist")
    summary = run(run_file)
    words = r"training: from the second moments of 300 cells \(one pass over them; ready in \d+\.\d s\), solved"
    assert re.search(words, caplog.text)
    assert "1 perturbed genes that were not measured may regulate, too: 'elsewhere'" in caplog.text
    settings = yaml.safe_load((Path(summary.folder) / "config.yaml").read_text())
    assert (settings["model"]["form"], settings["training"]["source"], summary.steps) == ("full", "moments", 1)
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
    "settings",
    [
        ["model.form=bilinear"],
        ["model.form=attention"],
        ["model.form=bilinear", "model.start=svd"],
        ["training.source=cells"],
        ["model.form=bilinear", "training.schedule=alternating"],
    ],
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


@pytest.mark.parametrize("settings", [["model.form=full"], ["model.form=bilinear"]])
def test_cells_whose_moments_were_summed_count_once(run_file: Path, settings: list[str]):
    summary = run(run_file, *settings)
    assert summary.cells_per_second * summary.seconds == pytest.approx(300)
    lines = (Path(summary.folder) / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["cells_per_second"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] >= summary.cells_per_second


def test_a_solved_model_has_no_groups_to_alternate(run_file: Path):
    assert run(run_file, "model.form=full", "training.schedule=alternating").steps == 1


def before_piece(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Let something happen whenever cells are read for the moments."""
    read = Loader.batch_at

    def batch_at(self: Loader, step: int) -> Batch:
        act()
        return read(self, step)

    monkeypatch.setattr(Loader, "batch_at", batch_at)


def test_a_finished_run_is_not_prepared_again(run_file: Path, monkeypatch: pytest.MonkeyPatch):
    first = run(run_file)
    before_piece(monkeypatch, lambda: pytest.fail("cells are read"))
    again = run(run_file, resume=True)
    assert (again.checkpoint, again.steps, again.losses) == (first.checkpoint, first.steps, {})


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_in_its_preparation_says_how_to_go_on(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, signum: int, status: int
):
    handler = signal.getsignal(signum)
    with monkeypatch.context() as patch:
        before_piece(patch, lambda: os.kill(os.getpid(), signum))
        with pytest.raises(Interrupted, match=r"before step 1: .* go on with the same command and --resume") as stopped:
            run(run_file)
    assert stopped.value.exit_status == status
    assert signal.getsignal(signum) is handler
    assert sorted(path.name for path in (run_file.parent / "runs" / "d").iterdir()) == [".lock", "config.yaml"]
    assert run(run_file, resume=True).losses


def test_a_run_stopped_before_it_replaces_another_leaves_it(run_file: Path, monkeypatch: pytest.MonkeyPatch):
    before = weights(run(run_file))
    with monkeypatch.context() as patch:
        before_piece(patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted, match="the same command starts it again"):
            run(run_file, "model.gain=0.3", overwrite=True)
    again = run(run_file, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in weights(again).items())


def test_moments_of_gene_subsets_train(run_file: Path):
    summary = run(run_file, "model.form=bilinear", "training.genes_per_step=5")
    assert summary.steps == 12
    assert np.isfinite(summary.losses["loss"])


def test_a_panel_too_large_for_moments_is_trained_by_mini_batches(run_file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "grndist")
    summary = run(run_file, "training.moments_memory=1e-9")
    assert "training: 12 steps, mini-batches of 50 cells" in caplog.text
    settings = yaml.safe_load((Path(summary.folder) / "config.yaml").read_text())
    assert (settings["model"]["form"], settings["training"]["source"]) == ("bilinear", "cells")
    assert settings["training"]["genes_per_step"] == 12


def test_epochs_ask_for_cells(run_file: Path):
    summary = run(run_file, "training.epochs=2", "training.steps=null")
    assert summary.steps == 2 * 6


def test_what_is_decided_does_not_depend_on_when(run_file: Path, store: Store):
    view = whole(store)
    once = resolved(load_run(run_file, []), view)
    assert once.training.source == "moments"
    assert resolved(once, view) == once
    wide = replace(view, columns=np.resize(view.columns, 50_000))
    large = resolved(load_run(run_file, []), wide)
    assert (large.training.source, large.training.genes_per_step, large.training.steps) == ("cells", 2000, 12 * 25)
    assert resolved(large, wide) == large


def test_perturbed_genes_that_were_not_measured_take_memory_too(run_file: Path, store: Store):
    """Of 300 cells each with 200 of them: E[x x^T] of 60,000 inputs, whatever the panel."""
    view = whole(store)
    many = ["+".join(f"far{cell}x{guide}" for guide in range(200)) for cell in range(view.n_cells)]
    crowded = replace(view, labels=pd.Categorical(many))
    assert resolved(load_run(run_file, []), crowded).training.source == "cells"
    without = load_run(run_file, ["model.unmeasured=false"])
    assert resolved(without, crowded).training.source == "moments"


def test_perturbed_genes_that_were_not_measured_regulate(run_file: Path):
    edges = edges_of_run(run(run_file).folder)
    assert "elsewhere" in set(edges.table["regulator"])
    assert "elsewhere" not in set(edges.table["target"])
    without = edges_of_run(run(run_file, "model.unmeasured=false", "name=without").folder)
    assert "elsewhere" not in set(without.table["regulator"])


def test_a_list_of_regulators_may_name_unmeasured_ones(run_file: Path, tmp_path: Path):
    (tmp_path / "tfs.txt").write_text("g1\nelsewhere\nnowhere\n")
    summary = run(run_file, f"genes.regulators={tmp_path / 'tfs.txt'}")
    assert checkpoint.describe(Path(summary.checkpoint)).regulators == ["g1", "elsewhere"]
    assert set(edges_of_run(summary.folder).table["regulator"]) == {"g1", "elsewhere"}
    (tmp_path / "tfs.txt").write_text("g1\ng3\n")
    summary = run(run_file, f"genes.regulators={tmp_path / 'tfs.txt'}", "name=measured")
    assert set(edges_of_run(summary.folder).table["regulator"]) == {"g1", "g3"}


def test_without_control_cells_the_model_alone_scores(run_file: Path):
    treated = ["cells.where=~is_control", "model.form=bilinear"]
    with pytest.raises(UserError, match=r"no control cells, .*=catran_d compares .* or set model\.scores=model"):
        run(run_file, *treated)
    assert len(edges_of_run(run(run_file, *treated, "model.scores=model").folder))


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
        (
            ["model.form=full", "training.epochs=2", "training.steps=null"],
            "all cells, but training.epochs=2; change that",
        ),
        (
            ["model.form=full", "training.source=cells"],
            "is solved from moments of all cells, but training.source=cells",
        ),
        (["model.form=full", "model.own_perturbation=masked"], "model.own_perturbation=masked needs the cells"),
        (["model.form=full", "training.moments_memory=1e-9"], "but they take 0.0 GiB and training.moments_memory"),
        (
            ["training.source=moments", "training.moments_memory=1e-9"],
            "training.moments_memory is 1e-09; raise it",
        ),
        (
            ["model.form=bilinear", "training.source=moments", "training.epochs=3", "training.steps=null"],
            "training.source=moments has no epochs",
        ),
        (
            ["training.source=cells", "model.start=svd"],
            "model.start=svd is taken from moments, and this run learns from",
        ),
        (["training.source=moments", "model.own_perturbation=masked"], "with these settings learns from cells"),
        (
            ["training.sampling=per_perturbation", "training.control_share=0.2"],
            "training.sampling=per_perturbation, training.control_share=0.2: which cells a step sees means nothing",
        ),
        (["training.streams=2"], "training.streams=2: which cells a step sees"),
        (["model.form=bilinear", "training.source=moments", "training.streams=2"], "set training.source=cells, or"),
        (["expression.zscore=all"], "expression.zscore is 'all', but sums over all cells need values"),
        (["expression.zscore=all", "training.source=cells"], "for mini-batches too); set it to 'none'"),
        (["expression.cell_minmax=true"], "expression.cell_minmax is True, but sums over all cells"),
    ],
)
def test_what_cannot_be_had_is_refused_before_it_starts(run_file: Path, overrides: list[str], words: str):
    with pytest.raises(UserError, match=re.escape(words)):
        run(run_file, *overrides)
    assert not (run_file.parent / "runs" / "d" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.epochs=3"], "epochs=3 and steps=12, one of which may be the preset's; set the other to null"),
        (["training.steps=null"], "epochs=None and steps=None, one of which"),
        (["training.precision=bf16"], "precision=bf16 is for GPUs; set device=cuda, or precision=float32"),
        (["model.gain=0"], "model.gain: Input should be greater than 0"),
    ],
)
def test_settings_that_do_not_go_together_are_named(run_file: Path, overrides: list[str], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_run(run_file, overrides)
