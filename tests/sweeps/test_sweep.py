"""Sweeps on a real Ray cluster of this machine: whole, killed at a random moment, and with every scheduler."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from grndist.config import read_tree
from grndist.errors import UserError
from grndist.runs import load_run
from grndist.sweeps.ledger import Ledger, Trial
from tests.launch.runs_on_ray import until
from tests.sweeps.sweep_files import sweep_file

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("optuna", reason="Optuna is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own, of its start and its end


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


def swept(file: Path, resume: bool = False, **changes: object) -> tuple[Ledger, str]:
    from grndist.sweeps.drive import run_sweep

    summary = run_sweep(file, dict(changes), resume)
    return Ledger(summary.folder), summary.text


def same(one: Trial, other: Trial) -> bool:
    """Whether two trials are the same in everything but time."""
    return (one.settings, one.status, one.looks) == (other.settings, other.status, other.looks)


def test_a_sweep_from_its_file_to_its_summary(tmp_path: Path, store_path: Path):
    from mlflow import MlflowClient

    two = [
        {"kind": "reference", "file": str(tmp_path / "network.tsv"), "measure": "auprc_ratio"},
        {"kind": "stability", "k": 20},
    ]
    run = {"tracking": {"kind": "mlflow"}}
    file = sweep_file(tmp_path, store_path, objectives=two, replicates=2, confirm=2, run=run)
    ledger, text = swept(file)
    trials = ledger.trials()
    assert [trial.status for trial in trials] == ["finished"] * 6
    assert all(len(values) == 2 for trial in trials for values in trial.values.values())
    for words in ("6 trials (6 finished)", "Pareto front", "on fresh seeds 1000-1001", "grndist train", "random"):
        assert words in text
    table = pd.read_parquet(ledger.folder / "trials.parquet")
    assert table["trial"].tolist() == list(range(6))
    assert table["seconds"].between(0, 600).all()
    best = load_run(ledger.folder / "best.yaml", [])
    goal = "auprc_ratio"
    settings = max(trials, key=lambda trial: trial.mean(goal)).settings
    assert (best.model.embedding, best.training.learning_rate) == (
        settings["model.embedding"], settings["training.learning_rate"],
    )  # fmt: skip
    assert {"parallel.png", "over_time.png", "parameters.png"} <= {path.name for path in ledger.folder.iterdir()}

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("grndist").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    assert {one.info.status for one in runs} == {"FINISHED"}
    parent = json.loads((ledger.folder / "sweep.json").read_text())["run_id"]
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent]
    assert len(children) == len(runs) - 1 == 6 * 2 + 2 * 2
    assert {one.data.tags["trial"] for one in children} >= {str(number) for number in range(6)}

    again, _ = swept(file, resume=True)  # all is known
    assert [repr(trial) for trial in again.trials()] == [repr(trial) for trial in trials]


def killed_at_random(file: Path, ledger: Ledger, enough: int) -> None:
    """Start `grndist sweep` in a process of its own, and kill it a random while after so many trials have ended."""
    log = file.with_suffix(".log")
    with log.open("w") as said:
        command = [sys.executable, "-m", "grndist.cli", "sweep", str(file), "--address", "local"]
        driver = subprocess.Popen(command, stdout=said, stderr=said)
    below: list[psutil.Process] = []
    try:
        until(lambda: sum(trial.is_over for trial in ledger.trials()) >= enough or driver.poll() is not None, 600)
        assert driver.poll() is None, log.read_text()
        time.sleep(moment := random.uniform(0, 2))
        print(f"killed {moment:.3f} s after {enough} trials")
        below = psutil.Process(driver.pid).children(recursive=True)
    finally:
        driver.kill()
        driver.wait()
        for process in below:  # Ray's, which would go some seconds later
            if process.is_running():
                process.kill()


def test_killed_at_a_random_moment_and_resumed_it_tries_the_same_and_finds_the_same(tmp_path: Path, store_path: Path):
    few = {"run": {"training": {"steps": 60, "checkpoint_every": 7}}}
    file = sweep_file(tmp_path, store_path, **few)
    killed = Ledger(tmp_path / "sweeps" / "s")
    killed_at_random(file, killed, enough=2)
    before = {trial.number: trial for trial in killed.trials() if trial.is_over}
    _, text = swept(file, resume=True)
    ledger, undisturbed = swept(file, name="undisturbed")
    assert all(same(*pair) for pair in zip(killed.trials(), ledger.trials(), strict=True))
    assert len(killed.trials()) == 6
    for number, trial in before.items():  # not done again
        assert repr(killed.trial(number)) == repr(trial)
    best = [line for line in text.splitlines() if line.startswith("best:")]
    assert best
    assert best == [line for line in undisturbed.splitlines() if line.startswith("best:")]


def test_with_tpe_and_asha_nothing_is_done_again_and_the_budget_is_kept(tmp_path: Path, store_path: Path):
    changes = {"search": "tpe", "scheduler": {"kind": "asha", "looks": 4}, "budget": {"trials": 10}}
    file = sweep_file(tmp_path, store_path, **changes, run={"training": {"steps": 40, "checkpoint_every": 7}})
    ledger = Ledger(tmp_path / "sweeps" / "s")
    killed_at_random(file, ledger, enough=3)
    before = {trial.number: repr(trial) for trial in ledger.trials() if trial.is_over}
    begun = {trial.number: trial.settings for trial in ledger.trials()}
    swept(file, resume=True)
    trials = ledger.trials()
    assert [trial.number for trial in trials] == list(range(10))
    assert {trial.status for trial in trials} == {"finished", "stopped"}
    for number, trial in before.items():
        assert repr(ledger.trial(number)) == trial
    for number, settings in begun.items():
        assert ledger.trial(number).settings == settings
    for trial in trials:
        assert trial.looks
        assert (trial.status == "finished") == (trial.looks[-1].part == 1)


def test_what_does_not_train_is_a_failed_trial_and_the_sweep_goes_on(tmp_path: Path, store_path: Path):
    space = {"training.learning_rate": {"grid": [1e-3, 1e38]}}
    ledger, text = swept(sweep_file(tmp_path, store_path, space=space, budget={"trials": 2}))
    assert [trial.status for trial in ledger.trials()] == ["finished", "failed"]
    assert "trial 1 failed: the loss is" in text


def test_trials_that_are_trained_together_are_worth_the_same(tmp_path: Path, store_path: Path):
    vae = {"preset": "dazzle", "model": {"width": 4}, "training": {"epochs": 2}, "tracking": {"kind": "none"}}
    changes = {"run": vae, "space": {"model.alpha": {"loguniform": [1.0, 100.0]}}, "budget": {"trials": 5}}
    together, _ = swept(sweep_file(tmp_path, store_path, **changes, trial={"together": 8}))
    alone, _ = swept(sweep_file(tmp_path, store_path, **changes), name="alone")
    for one, other in zip(together.trials(), alone.trials(), strict=True):
        assert (one.status, one.settings) == ("finished", other.settings)
        assert one.mean("auprc_ratio") == pytest.approx(other.mean("auprc_ratio"), rel=1e-3)


def test_where_nothing_trains_there_is_one_message(tmp_path: Path, store_path: Path):
    space = {"training.learning_rate": {"choice": [1e38]}}
    with pytest.raises(UserError, match=r"none of 2 trials has finished; trial 0: the loss is"):
        swept(sweep_file(tmp_path, store_path, space=space, budget={"trials": 2}))


def test_ctrl_c_keeps_what_has_finished_and_leaves_nothing_open(tmp_path: Path, store_path: Path):
    long = {"training": {"steps": 400, "checkpoint_every": 50}, "tracking": {"kind": "mlflow"}}
    file = sweep_file(tmp_path, store_path, run=long, budget={"trials": 4})
    ledger, log = Ledger(tmp_path / "sweeps" / "s"), tmp_path / "said.log"
    command = [sys.executable, "-m", "grndist.cli", "sweep", str(file), "--address", "local"]
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as driver:
        until(lambda: any(trial.is_over for trial in ledger.trials()) or driver.poll() is not None, 600)
        driver.send_signal(signal.SIGINT)
    assert driver.returncode == 128 + signal.SIGINT, log.read_text()
    assert "go on with the same command and --resume" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert set(statuses(tmp_path)) <= {"FINISHED", "KILLED"}
    finished = {trial.number: repr(trial) for trial in ledger.trials() if trial.is_over}
    assert 0 < len(finished) < 4
    swept(file, resume=True)
    assert [trial.status for trial in ledger.trials()] == ["finished"] * 4
    assert {number: repr(ledger.trial(number)) for number in finished} == finished
    assert statuses(tmp_path) == ["FINISHED"] * 5  # the interrupted runs went on


def statuses(folder: Path) -> list[str]:
    """Of every run of the sweep in MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("grndist").experiment_id
    return [one.info.status for one in client.search_runs([experiment], max_results=1000)]


def test_a_trial_may_have_workers_of_its_own(tmp_path: Path, store_path: Path):
    two = {"workers": {"min": 2, "max": 2, "start_timeout": 120}, "training": {"streams": 4}}
    alone, _ = swept(sweep_file(tmp_path, store_path, run={"training": {"streams": 4}}, budget={"trials": 1}))
    shared, _ = swept(sweep_file(tmp_path, store_path, run=two, budget={"trials": 1}), name="shared")
    goal = "auprc_ratio"
    assert shared.trial(0).status == "finished"
    assert shared.trial(0).mean(goal) == pytest.approx(alone.trial(0).mean(goal), rel=1e-3)


def test_a_population(tmp_path: Path, store_path: Path):
    pbt = {"kind": "pbt", "looks": 3, "mutate": ["training.learning_rate"]}
    file = sweep_file(tmp_path, store_path, scheduler=pbt, budget={"trials": 6})
    ledger, _ = swept(file)
    trials = ledger.trials()
    assert [len(trial.looks) for trial in trials] == [3] * 6
    heirs = list(ledger.folder.glob("trials/*/seed-0/inherited.json"))
    assert heirs
    for heir in heirs:
        settings = read_tree(heir.parent / "config.yaml")
        rate = ledger.trial(int(heir.parent.parent.name)).settings["training.learning_rate"]
        assert settings["training"]["learning_rate"] == rate


def test_the_median_rule_and_a_time_budget(tmp_path: Path, store_path: Path):
    median = {"scheduler": {"kind": "median", "looks": 3}}
    ledger, _ = swept(sweep_file(tmp_path, store_path, **median, budget={"trials": 4}))
    used = ledger.seconds_used()
    swept(sweep_file(tmp_path, store_path, **median, budget={"trials": None, "hours": (used + 5) / 3600}), resume=True)
    assert ledger.seconds_used() >= used + 5
    assert len(ledger.trials()) > 4
    assert all(trial.is_over for trial in ledger.trials())
    assert any(trial.status == "finished" for trial in ledger.trials())


def test_a_trial_that_does_not_fit_is_refused(tmp_path: Path, store_path: Path):
    with pytest.raises(UserError, match=r"a trial needs 3 CPUs, and the cluster has 2 CPUs"):
        swept(sweep_file(tmp_path, store_path), trial={"cpus": 3})
