import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grndist.config import ConfigError, validate
from grndist.tracking import TrackingConfig, open_tracker
from tests.tracking.conftest import EVERYTHING, REPOSITORY, closed_port, kinds, log_all_sorts, warnings_in


def test_importing_it_does_not_import_mlflow():
    program = "import sys, grndist.tracking; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


# --- the config ---


@pytest.mark.parametrize(
    "uri", ["", "https://mlflow.lab:5000", "sqlite:////data/my runs/m.db", "postgresql+psycopg://me@db/x"]
)
def test_a_server_and_a_database_are_accepted(uri: str):
    assert validate(TrackingConfig, {"uri": uri}, "run.yaml").uri == uri


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("./mlruns", "sqlite:////absolute/path.db"),
        ("file:///data/mlruns", "sqlite:////absolute/path.db"),
        ("sqlite:///mlflow.db", "must be absolute, which takes four slashes"),
        ("sqlite://", "must be absolute"),
        ("https://me:secret@mlflow.lab", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://db/x?user=me&password=secret", r"~/\.pgpass"),
        ("https://secret@mlflow.lab", "MLFLOW_TRACKING_TOKEN"),
        ("https://mlflow.lab/?access_token=secret", "MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_another_uri_is_refused_with_the_way_out(uri: str, words: str):
    with pytest.raises(ConfigError, match=rf"run\.yaml is not valid:\s+uri: .*{words}"):
        validate(TrackingConfig, {"uri": uri}, "run.yaml")


@pytest.mark.parametrize("name", ["mlflow.parentRunId", "grndist.key", "", "a/b"])
def test_a_tag_that_is_ours_or_mlflow_s_is_refused(name: str):
    with pytest.raises(ConfigError, match=r"run\.yaml is not valid:\s+tags: .*; rename it"):
        validate(TrackingConfig, {"tags": {name: "x"}}, "run.yaml")


# --- failures: a warning, and nothing else ---


def test_a_dead_server_costs_one_warning(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tracker = open_tracker(TrackingConfig(uri=f"http://127.0.0.1:{closed_port()}"), tmp_path, "run")
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    tracker.close()
    assert tracker.run_id == ""
    (warning,) = warnings_in(caplog)
    assert "Connection refused" in warning
    assert f"`grndist tracking replay {tmp_path / 'run'}` sends it. The run itself is not affected" in warning
    (line,) = tracker.where()
    assert f"it waits in {tmp_path / 'run' / 'tracking-spool'}, and `grndist tracking replay" in line


def test_a_server_that_never_answers_does_not_hold_the_run(
    silent_server: str, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tracker = open_tracker(TrackingConfig(uri=silent_server), tmp_path, "run")
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    assert not tracker._settled.is_set()  # nobody has waited for an answer
    tracker.close()
    (warning,) = warnings_in(caplog)
    assert "timed out" in warning
    assert kinds(tmp_path / "run" / "tracking-spool") == EVERYTHING


def test_the_user_s_own_patience_is_kept_and_closing_is_bounded(
    silent_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    tracker = open_tracker(TrackingConfig(uri=silent_server), tmp_path, "run", "f" * 32)
    tracker.close(patience=1.5)
    assert tracker._sending.is_alive()  # it was not waited for
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
    assert tracker.run_id == "f" * 32  # known from before, so the next try can continue it
    (warning,) = warnings_in(caplog)
    assert "no answer within 1.5 s" in warning


def test_a_disk_that_stands_still_holds_nobody_and_what_it_could_not_take_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """The spool's files are a pipe that nobody reads: writing to it stands still when it is full."""
    monkeypatch.setattr("grndist.tracking.tracker.ENTRIES_HELD", 100)
    folder = tmp_path / "run" / "tracking-spool"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "entries.jsonl")
    tracker = open_tracker(TrackingConfig(uri=f"http://127.0.0.1:{closed_port()}"), tmp_path, "run")
    for step in range(1000):
        tracker.log_metrics(step, {"loss": step})
    assert tracker._dropped == 1000 - 100
    tracker.close(patience=0.1)
    assert "it waits in" in tracker.where()[0]
    assert len(warnings_in(caplog)) == 1
    with (folder / "entries.jsonl").open("rb"):  # let the thread go
        tracker._writing.join(30)
    assert not tracker._writing.is_alive()


def test_tracking_can_be_off(tmp_path: Path):
    tracker = open_tracker(TrackingConfig(kind="none"), tmp_path, "run")
    log_all_sorts(tracker, tmp_path)
    tracker.close()
    assert tracker.run_id == ""
    assert tracker.where() == ["MLflow: off (tracking.kind is none)"]
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_and_logging_afterwards_is_harmless(client: Any, root: Path, caplog: pytest.LogCaptureFixture):
    tracker = open_tracker(TrackingConfig(), root, "twice")
    tracker.close("FINISHED")
    tracker.close("FAILED")
    log_all_sorts(tracker, root)
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert warnings_in(caplog) == []
