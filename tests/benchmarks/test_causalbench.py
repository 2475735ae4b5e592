"""`grndist causalbench` from end to end, what is left of it after a kill, and what it says of mistakes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grndist.data.ingest.build import write_store
from grndist.data.selection import SelectionConfig, select
from grndist.data.selection.causalbench import CausalBenchConfig
from grndist.data.store import open_store
from grndist.evaluation.interventional import mean_wasserstein, rank_sum_precision, score_edges
from grndist.genes import NON_TARGETING
from grndist.networks.io import read_edges
from tests.data.selection.selecting import perturb_seq
from tests.test_cli import REPOSITORY, done, grndist

K = 10
QUICK = f"--fractions 0.5,1 -k {K} --summary K562_small.xlsx tracking.kind=none"
UNTRAINED = "--model mean_difference_log --model random"


@pytest.fixture(scope="module")
def folder(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the published files, the store, and a comparison of two seeds in `out`."""
    folder = Path(shutil.copytree(made.parent, tmp_path_factory.mktemp("causalbench") / "folder"))
    with contextlib.chdir(folder):
        (folder / "said.txt").write_text(done(f"causalbench K562_small.h5ad {QUICK} {UNTRAINED} --seeds 0,1 -o out"))
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same to be changed, where one stands."""
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copied"))
    return Path("out")


def curves(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "curves.parquet")


def of(table: pd.DataFrame, model: str, fraction: float = 1.0, k: int = K) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["fraction"] == fraction) & (table["K"] == k)]


def test_every_model_fraction_and_seed_has_its_curve(folder: Path):
    table = curves(folder / "out")
    assert set(table["model"]) == {"mean_difference_log", "random"}
    counts = table.groupby(["model", "fraction", "seed"])["K"].apply(list)
    assert len(counts) == 2 * 2 * 2
    assert set(map(tuple, counts)) == {(1, 2, 5, 10, 20)}  # up to the 30 edges that 6 genes can have
    trained_on = table.groupby("fraction")["trained_on"].min()
    assert trained_on[0.5] < trained_on[1.0]


def test_values_at_k_of_a_trained_model_are_those_of_the_held_out_cells(copied: Path):
    folder = Path.cwd()
    done(f"causalbench K562_small.zarr {QUICK} --model catran_d --fractions 1 --seeds 0 -o trained")
    table = of(curves(folder / "trained"), "catran_d")
    config = CausalBenchConfig(summary={"file": folder / "K562_small.xlsx", "sheet": "TabB_K562_day6_summary_stat"})
    test = select(
        open_store(folder / "K562_small.zarr"),
        SelectionConfig(causalbench=config.model_copy(update={"split": "test"})),
    )
    tested = score_edges(test, read_edges(folder / "trained" / "networks" / "catran_d-1-seed-0.parquet"))
    first = table.iloc[0]
    assert first["mean_wasserstein"] > of(curves(copied), "random")["mean_wasserstein"].mean()
    assert first["mean_wasserstein"] == pytest.approx(mean_wasserstein(tested, K), rel=1e-12)
    assert first["rank_sum_precision"] == rank_sum_precision(tested, K)
    assert 0 <= first["false_omission_rate"] <= 1


def test_planted_effects_are_found(folder: Path):
    table = curves(folder / "out")
    chance = of(table, "random")["mean_wasserstein"].mean()
    assert of(table, "mean_difference_log")["mean_wasserstein"].mean() > chance


def test_the_challenges_score_is_area_and_trend(folder: Path):
    scores = json.loads((folder / "out" / "scores.json").read_text())
    table = curves(folder / "out")
    low = of(table, "random", 0.5).set_index("seed")["mean_wasserstein"]
    high = of(table, "random", 1.0).set_index("seed")["mean_wasserstein"]
    found = scores["models"]["random"]["challenge"]
    assert found["area"] == pytest.approx((0.5 * (low + high) / 2).mean())
    assert found["trend"] == pytest.approx((high - low).mean())
    assert found["area_sd"] == pytest.approx((0.5 * (low + high) / 2).std())
    assert scores["k"] == K
    assert scores["models"]["random"]["fraction 1"]["seeds"] == 2


def test_it_ends_with_a_table_and_a_figure(folder: Path):
    said = (folder / "said.txt").read_text()
    assert "challenge score" in said
    assert "next: look at" in said
    for name in ("mean_difference_log", "random"):
        assert name in said
    assert (folder / "out" / "causalbench.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "out" / "summary.txt").read_text() in said.replace("MLflow", "\0").split("\0")[0] + "\n"


def test_what_is_done_is_not_done_again_and_more_can_be_added(copied: Path):
    before = {file.name: file.stat().st_mtime_ns for file in (copied / "cases").iterdir()}
    lost = copied / "cases" / "random-0.5-seed-1.json"
    gone, content = lost.name, json.loads(lost.read_text())
    lost.unlink()
    done(f"causalbench K562_small.zarr {QUICK} {UNTRAINED} --model correlation --seeds 0,1 -o out --resume")
    after = {file.name: file.stat().st_mtime_ns for file in (copied / "cases").iterdir()}
    assert {name for name in before if after[name] != before[name]} == {gone}
    assert len(after) == len(before) + 4  # correlation
    assert json.loads(lost.read_text())["curve"] == content["curve"]
    assert set(curves(copied)["model"]) == {"mean_difference_log", "random", "correlation"}


def test_too_short_a_network_is_said_and_not_crashed_on(copied: Path):
    said = done(f"causalbench K562_small.zarr {QUICK.replace('0.5,1', '0,0.2')} --model mean_difference_log -o short")
    assert "fraction 0, seed 0: no value at 10 edges" in said
    assert "none of these" in said or "perturbed" in said
    assert "fraction 0.2, seed 0: no value at 10 edges: only" in said
    assert curves(Path("short"))["mean_wasserstein"].notna().sum() < len(curves(Path("short")))
    scores = json.loads(Path("short/scores.json").read_text())
    assert scores["models"]["mean_difference_log"]["challenge"]["area"] is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--model papr", "papr: there is no preset or baseline of that name"),
        ("--model random --model random", "random is there 2 times"),
        ("--model random -k 31", "6 perturbed genes x 6 targets make 30 edges"),
        ("--model random --fractions 0.5,2", "shares from 0 to 1 were expected"),
        ("--model random --fractions half", "--fractions half: numbers with commas"),
        ("--model random --seeds 0,x", "--seeds 0,x: numbers with commas"),
        ("--model random random.training.steps=3", "random.KEY=VALUE changes no model"),
        ("--model catran_d catran_d.training.stepz=3", "training.stepz: unknown key"),
        ("--model catran_d cells.where=x", "leave cells out"),
        ("--model random causalbench.seed=3", "give --fractions and --seeds instead"),
        ("--model random -o out", "out exists already; go on with --resume"),
        ("--model random -o new --resume", "there is nothing to resume"),
        ("--model random -o out --resume", "these differ: k"),
        ("--model random -o K562_small.xlsx", "is a file; give another --out"),
        ("--model random --summary none.xlsx", "none.xlsx: no such file"),
        ("--model random --summary K562_small.xlsx:TabX", "has no sheet 'TabX'"),
    ],
)
def test_mistakes_are_one_message(copied: Path, line: str, words: str):
    given = f"{line} -k 5" if "-k" not in line and "--resume" in line else line
    said = grndist(f"causalbench K562_small.zarr {given} tracking.kind=none")
    assert said.status == 2
    assert words in said.err
    assert "Traceback" not in said.err
    assert not Path("new").exists()
    assert not Path("causalbench").exists()


def test_cells_without_perturbations_or_controls_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    counts, obs, var = perturb_seq()
    write_store(tmp_path / "none.zarr", counts, obs.assign(perturbation=NON_TARGETING), var, "counts", {})
    perturbed = (obs["perturbation"] != NON_TARGETING).to_numpy()
    write_store(tmp_path / "free.zarr", counts[perturbed], obs[perturbed], var, "counts", {})
    for store, words in (("none", "needs perturbations of measured genes"), ("free", "is a control")):
        said = grndist(f"causalbench {store}.zarr --model random -k 3")
        assert said.status == 2
        assert words in said.err


# --- the published models, and a kill ---

TRAINED = "--model paper --model catran_d --model random paper.training.epochs=8 training.checkpoint_every=2 --seeds 0"


def killed_once(line: str, ready: Path) -> int:
    """Start `grndist LINE` as a process and kill it when `ready` is there; its exit status."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-m", "grndist.cli", *line.split()], env=environment)
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_numbers(copied: Path):
    line = f"causalbench K562_small.zarr {QUICK} {TRAINED}"
    done(f"{line} -o whole")
    status = killed_once(f"{line} -o killed", Path("killed/runs/paper-1-seed-0/checkpoints"))
    assert status == -signal.SIGKILL
    finished = sorted(file.name for file in Path("killed/cases").iterdir())
    assert "paper-0.5-seed-0.json" in finished
    assert "paper-1-seed-0.json" not in finished
    done(f"{line} -o killed --resume")
    one, other = (curves(Path(out)).drop(columns="seconds") for out in ("whole", "killed"))
    pd.testing.assert_frame_equal(one, other)
    for case in ("paper-1-seed-0", "catran_d-1-seed-0"):
        edges = [read_edges(Path(out) / "networks" / f"{case}.parquet").table for out in ("whole", "killed")]
        pd.testing.assert_frame_equal(*edges)
    assert np.isfinite(of(one, "paper")["mean_wasserstein"]).all()


@pytest.mark.slow
def test_trainings_are_shown_below_the_comparison_in_mlflow(copied: Path):
    from mlflow import MlflowClient

    line = f"--fractions 1 --seeds 0 -k {K} --model paper --model random paper.training.epochs=1"
    done(f"causalbench K562_small.zarr {line} -o tracked")
    client = MlflowClient(f"sqlite:///{Path('tracked/runs/mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name("grndist")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"causalbench", "paper-1-seed-0"}
    parent, child = runs["causalbench"], runs["paper-1-seed-0"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.data.tags["benchmark"], child.data.tags["fraction"]) == ("causalbench", "1")
    assert "models.random.fraction 1.mean_wasserstein" in parent.data.metrics
