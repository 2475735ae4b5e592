import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from grndist.config import ConfigError
from grndist.data.ingest.build import write_store
from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.runs import Interrupted, RunConfig, load_run, presets, train_run
from grndist.training import checkpoint
from tests.conftest import genes, small_counts

CATRAN = {
    "model": {"kind": "catran", "embedding": 4},
    "training": {
        "epochs": 4,
        "cells_per_step": 60,
        "genes_per_step": 8,
        "checkpoint_every": 3,
        "log_every": 2,
        "threads": 1,
    },
    "tracking": {"kind": "none"},
}
DAZZLE = {
    "preset": "dazzle",
    "training": {"epochs": 4, "cells_per_step": 60, "checkpoint_every": 3, "log_every": 2, "threads": 1},
    "tracking": {"kind": "none"},
}


@pytest.fixture
def run_file(tmp_path: Path, store_path: Path) -> Path:
    return written(tmp_path / "small.yaml", CATRAN, store_path)


def written(file: Path, tree: dict, store: Path) -> Path:
    file.write_text(yaml.safe_dump(tree | {"store": str(store), "runs": str(file.parent / "runs")}))
    return file


def load(run_file: Path, *overrides: str) -> RunConfig:
    return load_run(run_file, list(overrides))


def weights(folder: str | Path) -> dict:
    return load_file(checkpoint.latest(Path(folder) / "checkpoints") / "weights.safetensors")


def same_bits(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(bool((value == second[key]).all()) for key, value in first.items())


# --- the run file ---


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_valid_and_explicit_ones_repeat_the_papers_defaults(tmp_path: Path, preset: str):
    (tmp_path / "a.yaml").write_text(f"preset: {preset}\nstore: s.zarr\n")
    config = load(tmp_path / "a.yaml")
    assert config.preset == preset
    kind = {"paper": "catran", "grn_vae": "grn_vae"}.get(preset)
    if kind:
        (tmp_path / "b.yaml").write_text(f"model: {{kind: {kind}}}\nstore: s.zarr\n")
        plain = load(tmp_path / "b.yaml")
        assert (config.model, config.expression, config.training) == (plain.model, plain.expression, plain.training)


def test_overrides_win_over_the_file_over_the_preset_over_the_paper(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("preset: dazzle\nstore: s.zarr\ntraining: {epochs: 7}\n")
    config = load(tmp_path / "a.yaml", "model.alpha=5", "name=other")
    assert (config.training.epochs, config.training.optimizer, config.training.cells_per_step) == (7, "adam", 64)
    assert (config.model.alpha, config.model.sparse_delay, config.name) == (5, 5, "other")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.stepz=5"], "training.stepz: unknown key"),
        (["training.epochs=0"], "training.epochs: Input should be greater than 0"),
        (["model.hidden=1.5"], "model.hidden: Input should be less than 1"),
        (["model.kind=gpt"], "model.kind is 'gpt'; set it to one of catran, catran_d, grn_vae"),
        (["preset=best"], "there is no preset 'best'; the presets are catran_d, dazzle"),
        (["preset=catran_notebook"], "the preset 'catran_notebook' is now called 'notebook'; write that instead"),
        (["model.alpha=1"], "model.alpha: unknown key"),
        (["name=a/b"], "name: String should match pattern"),
        (
            ["training.streams=61"],
            "training.streams: Value error, each stream needs at least one cell a step, and training.cells_per_step is "
            "60; give at most 60 streams, or raise training.cells_per_step (got 61)",
        ),
        (["training.control_share=0.2"], "training.control_share: Value error, it needs training.sampling=per_pert"),
        (
            ["training.sampling=per_perturbation", "training.control_share=0.995"],
            "training.control_share: Value error, no perturbed cell is left in a step of 60; lower it, or raise "
            "training.cells_per_step (got 0.995)",
        ),
    ],
)
def test_mistakes_in_the_settings_are_named(run_file: Path, overrides: list[str], words: str):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(run_file, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.streams=60"],
        ["training.sampling=per_perturbation", "training.control_share=0.99"],  # 59 controls and one perturbed cell
    ],
)
def test_settings_at_their_border_are_valid(run_file: Path, overrides: list[str]):
    assert load(run_file, *overrides).training.cells_per_step == 60


# --- training ---


@pytest.mark.parametrize("tree", [CATRAN, DAZZLE], ids=["catran", "dazzle"])
def test_a_run_leaves_settings_checkpoints_and_metrics(tmp_path: Path, store_path: Path, tree: dict):
    config = load(written(tmp_path / "r.yaml", tree, store_path), "training.streams=1")
    summary = train_run(config)
    assert summary.steps == 4 * 5
    assert yaml.safe_load((Path(summary.folder) / "config.yaml").read_text())["training"]["epochs"] == 4
    assert checkpoint.describe(Path(summary.checkpoint)).config == config.model_dump(mode="json")
    lines = [json.loads(line) for line in (Path(summary.folder) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, 21, 2))
    assert lines[-1]["loss"] == summary.losses["loss"]
    assert summary.cells_per_second * summary.seconds == pytest.approx(4 * 300)


def test_same_settings_same_bits(run_file: Path):
    first = train_run(load(run_file))
    second = train_run(load(run_file, "name=again"))
    other = train_run(load(run_file, "name=other", "training.seed=1"))
    assert same_bits(weights(first.folder), weights(second.folder))
    assert not same_bits(weights(first.folder), weights(other.folder))


KILLED = """
import json, os, signal, sys
from pathlib import Path
from grndist import runs
from grndist.training import checkpoint, loop
run_file, overrides, *places = sys.argv[1], json.loads(sys.argv[2]), *sys.argv[3:]
for named in places:  # a process for each, which imports nothing again
    if not (killed := os.fork()):
        break
    assert os.waitpid(killed, 0)[1] == signal.SIGKILL
else:
    sys.exit()
place, at = named.split(":")
steps = 0
def kill_at(function, name):
    def wrapped(*args, **kwargs):
        global steps
        result = function(*args, **kwargs)
        if name == "step":
            steps += 1
        if name == place and steps >= int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped
loop.Optimizers.step = kill_at(loop.Optimizers.step, "step")
checkpoint.save = kill_at(checkpoint.save, "save")
checkpoint.save_file = kill_at(checkpoint.save_file, "write")
runs.train_run(runs.load_run(Path(run_file), [f"name=killed-{place}-{at}", *overrides]))
os._exit(1)
"""


def killed(run_file: Path, places: Sequence[str], *overrides: str) -> None:
    """Kill a run called killed-PLACE, if it is not given another name, at each of these places."""
    command = [sys.executable, "-c", KILLED, str(run_file), json.dumps(overrides), *places]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent)


def killed_runs_resume_to_the_same_bits(run_file: Path, places: Sequence[str]) -> None:
    """Kill a run at each of these places, go on with it, and compare it with one that was left alone."""
    whole = train_run(load(run_file))
    killed(run_file, places)
    for place in places:
        resumed = train_run(load(run_file, f"name=killed-{place.replace(':', '-')}"), resume=True)
        assert resumed.steps == whole.steps
        assert same_bits(weights(whole.folder), weights(resumed.folder)), place
        lines = (Path(resumed.folder) / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(2, 21, 2)), place


@pytest.mark.parametrize("tree", [CATRAN, DAZZLE], ids=["catran", "dazzle"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, store_path: Path, tree: dict):
    """Killed after a step, after a checkpoint is saved, and while one is being written, its files not all there."""
    places = ["step:1", "step:8", "save:9", "write:9", "step:19"]
    killed_runs_resume_to_the_same_bits(written(tmp_path / "r.yaml", tree, store_path), places)


@pytest.mark.slow
@pytest.mark.parametrize("tree", [CATRAN, DAZZLE], ids=["catran", "dazzle"])
def test_a_run_killed_at_any_step_resumes_to_the_same_bits(tmp_path: Path, store_path: Path, tree: dict):
    places = [f"step:{step}" for step in range(1, 21)]
    killed_runs_resume_to_the_same_bits(written(tmp_path / "r.yaml", tree, store_path), places)


INTERRUPTED = """
import sys
from pathlib import Path
from grndist import cli
sys.argv = ["grndist", "train", sys.argv[1], "training.epochs=100000", "name=stopped"]
cli.entry()
"""


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(run_file: Path, signum: int, status: int):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(run_file)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    folder = run_file.parent / "runs" / "stopped"
    deadline = time.monotonic() + 60
    while not checkpoint.checkpoints(folder / "checkpoints"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "is saved; go on with the same command and --resume" in errors
    assert "Traceback" not in errors
    step = checkpoint.describe(checkpoint.latest(Path(folder) / "checkpoints")).step
    assert f"stopped at step {step} of" in errors


def test_a_finished_run_resumes_to_itself(run_file: Path):
    first = train_run(load(run_file))
    before = weights(first.folder)
    again = train_run(load(run_file), resume=True)
    assert again.checkpoint == first.checkpoint
    assert same_bits(before, weights(again.folder))


# --- mistakes ---


def test_an_existing_run_is_neither_continued_nor_lost_by_accident(run_file: Path):
    train_run(load(run_file))
    with pytest.raises(UserError, match="exists already; go on with --resume, start it anew with --overwrite"):
        train_run(load(run_file))
    assert train_run(load(run_file), overwrite=True).steps == 20


def test_a_run_is_replaced_only_by_one_that_has_a_checkpoint(run_file: Path):
    first = train_run(load(run_file))
    before = weights(first.folder)
    with pytest.raises(UserError, match=r"lower training\.learning_rate"):
        train_run(load(run_file, "training.learning_rate=1e38"), overwrite=True)
    assert same_bits(before, weights(first.folder))
    assert "learning_rate: 0.001" in (Path(first.folder) / "config.yaml").read_text()
    assert train_run(load(run_file), resume=True).steps == 20
    other = train_run(load(run_file, "training.seed=1"), overwrite=True)
    assert not same_bits(before, weights(other.folder))
    assert not (Path(other.folder) / ".replaced").exists()


def test_a_folder_of_other_things_is_never_overwritten(run_file: Path):
    folder = run_file.parent / "runs" / "small"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists and is not a run directory"):
        train_run(load(run_file), overwrite=True)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_nothing_to_resume_is_said(run_file: Path):
    with pytest.raises(UserError, match="there is no run to resume"):
        train_run(load(run_file), resume=True)
    assert not (run_file.parent / "runs" / "small").exists()


def test_resume_refuses_changed_settings_by_name(run_file: Path):
    train_run(load(run_file))
    with pytest.raises(UserError, match=r"model.hidden: 0.8 before, 0.5 now"):
        train_run(load(run_file, "model.hidden=0.5"), resume=True)


def older(run: str | Path, *keys: str) -> None:
    """Make the settings of a run those of a version that lacks `keys`, and had other names for presets."""
    file = Path(run) / "config.yaml"
    tree = yaml.safe_load(file.read_text()) | {"preset": "catran"}
    for key in keys:
        part, _, name = key.partition(".")
        del tree[part][name]
    file.write_text(yaml.safe_dump(tree))


def test_settings_that_are_newer_than_a_run_had_their_defaults_then(run_file: Path):
    first = train_run(load(run_file))
    older(first.folder, "model.form", "model.attention_threshold", "training.steps", "training.source")
    assert train_run(load(run_file), resume=True).steps == 20
    with pytest.raises(UserError, match=r"model\.attention_threshold: 0\.0 before, 0\.5 now\ngive the old values"):
        train_run(load(run_file, "model.attention_threshold=0.5"), resume=True)


def test_a_run_whose_settings_are_no_longer_known_is_not_resumed(run_file: Path):
    file = Path(train_run(load(run_file)).folder) / "config.yaml"
    file.write_text(file.read_text().replace("attention_threshold:", "attention_cut:"))
    with pytest.raises(UserError, match=r"is of another version of grndist.*\n.*\n  model\.attention_cut: unknown key"):
        train_run(load(run_file), resume=True)


def test_resume_refuses_another_store_and_another_panel(run_file: Path, tmp_path: Path):
    train_run(load(run_file))
    for name, n_genes, words in (("other", 12, "its digest differs"), ("panel", 13, "another gene panel")):
        counts, obs = small_counts(n_genes=n_genes, seed=1)
        write_store(tmp_path / name, counts, obs, genes(n_genes), "counts", {})
        with pytest.raises(UserError, match=words):
            train_run(load(run_file, f"store={tmp_path / name}"), resume=True)


def test_resume_takes_the_same_store_from_another_place(run_file: Path, store_path: Path, tmp_path: Path):
    train_run(load(run_file))
    store_path.rename(tmp_path / "moved.zarr")
    assert train_run(load(run_file, f"store={tmp_path / 'moved.zarr'}"), resume=True).steps == 20


def test_two_processes_cannot_write_one_run(run_file: Path):
    code = INTERRUPTED.replace("name=stopped", "name=small")
    process = subprocess.Popen([sys.executable, "-c", code, str(run_file)], cwd=Path(__file__).parent.parent)
    try:
        deadline = time.monotonic() + 60
        while not (run_file.parent / "runs" / "small" / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match=f"in use by process {process.pid}"):
                train_run(load(run_file), **how)
    finally:
        process.kill()
        process.wait()


def test_perturbations_without_controls_are_refused_where_they_are_needed(tmp_path: Path, run_file: Path):
    counts, obs = small_counts()
    treated = (obs["perturbation"] != "non-targeting").to_numpy()
    write_store(tmp_path / "treated", counts[treated], obs[treated], genes(12), "counts", {})
    with pytest.raises(UserError, match=r"no control cells, and model\.kind=catran compares"):
        train_run(load(run_file, f"store={tmp_path / 'treated'}"))
    assert not (tmp_path / "runs").exists()
    train_run(load(run_file, f"store={tmp_path / 'treated'}", "model.interventional_weight=0"))


def test_interrupting_in_process_restores_the_handlers(run_file: Path, monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGINT)
    original = checkpoint.save

    def save_and_interrupt(folder, state, about):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(folder, state, about)

    monkeypatch.setattr(checkpoint, "save", save_and_interrupt)
    with pytest.raises(Interrupted, match="stopped at step 4"):
        train_run(load(run_file))
    assert signal.getsignal(signal.SIGINT) is before


# --- what a run sees of its store ---


def test_settings_choose_cells_and_genes_and_the_run_says_so(run_file: Path, caplog: pytest.LogCaptureFixture):
    config = load(run_file, "cells.split=[train]", "genes.exclude=[g2]", "training.genes_per_step=null")
    with caplog.at_level("INFO"):
        summary = train_run(config)
    assert checkpoint.describe(Path(summary.checkpoint)).genes == [f"g{n}" for n in range(12) if n != 2]
    assert "genes: 11 of 12 kept by genes.exclude" in caplog.text
    assert "cells.split train" in caplog.text
    assert "training: 4 epochs of 4 steps" in caplog.text  # 240 of 300 cells
    assert summary.steps == 16


def test_regulators_limit_the_edges(run_file: Path, tmp_path: Path):
    (tmp_path / "tfs.txt").write_text("g1\ng4\n")
    summary = train_run(load(run_file, f"genes.regulators={tmp_path / 'tfs.txt'}"))
    assert set(edges_of_run(summary.folder).table["regulator"]) == {"g1", "g4"}


def test_a_list_that_has_changed_is_noticed(run_file: Path, tmp_path: Path):
    (tmp_path / "tfs.txt").write_text("g1\ng4\n")
    setting = f"genes.regulators={tmp_path / 'tfs.txt'}"
    train_run(load(run_file, setting))
    (tmp_path / "tfs.txt").write_text("g1\n")
    with pytest.raises(UserError, match="a list or table that they name has changed"):
        train_run(load(run_file, setting), resume=True)


def test_centred_log_ratios_are_of_counts(run_file: Path, tmp_path: Path):
    counts, obs = small_counts()
    write_store(tmp_path / "logged.zarr", counts * 0.5, obs, genes(12), "log1p", {})
    with pytest.raises(UserError, match=r"its values are log1p, and expression\.transform=clr is for counts"):
        train_run(load(run_file, f"store={tmp_path / 'logged.zarr'}", "expression.transform=clr"))


@pytest.mark.parametrize("share", [0, 0.25])
def test_a_balanced_run_needs_perturbed_and_control_cells(run_file: Path, tmp_path: Path, share: float):
    counts, obs = small_counts()
    sampling = ["training.sampling=per_perturbation", f"training.control_share={share}", "training.epochs=1"]
    assert train_run(load(run_file, *sampling, "name=balanced")).steps >= 5  # an epoch is as long as the cells are many
    obs["perturbation"] = "non-targeting"
    write_store(tmp_path / "o.zarr", counts, obs, genes(12), "counts", {})
    with pytest.raises(UserError, match=r"no perturbed cells, and training\.control_share"):
        train_run(load(run_file, *sampling, f"store={tmp_path / 'o.zarr'}"))
