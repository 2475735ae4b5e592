import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grndist.config import ConfigError, validate
from grndist.tracking import Tracker, TrackingConfig, open_tracker
from grndist.tracking.mlflow_run import Run, open_run
from tests.tracking.conftest import REPOSITORY, log_all_sorts, warnings_in


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


# --- failures: a warning, and nothing else ---


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The URI of a server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> int:
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        return once.getsockname()[1]


def test_a_dead_server_costs_one_warning(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    begun = time.monotonic()
    tracker = open_tracker(TrackingConfig(uri=f"http://127.0.0.1:{closed_port()}"), tmp_path, "run")
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    tracker.close()
    assert time.monotonic() - begun < 5
    assert tracker.run_id == ""
    (warning,) = warnings_in(caplog)
    assert "Connection refused" in warning
    assert "metrics.jsonl in the run directory has its numbers" in warning
    assert "Connection refused" in tracker.where()[0]


def test_a_server_that_never_answers_costs_seconds(
    silent_server: str, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    begun = time.monotonic()
    tracker = open_tracker(TrackingConfig(uri=silent_server), tmp_path, "run")
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    assert time.monotonic() - begun < 1.5  # training goes on at once
    tracker.close()
    assert time.monotonic() - begun < 10
    (warning,) = warnings_in(caplog)
    assert "timed out" in warning


def test_the_user_s_own_patience_is_kept_and_closing_is_bounded(
    silent_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    tracker = open_tracker(TrackingConfig(uri=silent_server), tmp_path, "run", "f" * 32)
    tracker.close(patience=0.5)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
    assert tracker.run_id == "f" * 32  # known from before, so the next try can continue it
    (warning,) = warnings_in(caplog)
    assert "no answer within 0.5 s" in warning


def test_a_full_queue_drops_the_oldest_numbers_and_counts_them(
    client: Any, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("grndist.tracking.tracker.METRICS_HELD", 100)
    gate = threading.Event()

    def open_late() -> Run:
        gate.wait(10)
        return open_run(f"sqlite:///{root}/mlflow.db", "grndist", root, "late", "")

    tracker = Tracker(open_late, "late")
    for step in range(60):
        tracker.log_metrics(step, {"loss": step, "kl": step})
    gate.set()
    tracker.close()
    assert sorted(metric.step for metric in client.get_metric_history(tracker.run_id, "loss")) == list(range(10, 60))
    (warning,) = warnings_in(caplog)
    assert "20 values of this run are missing there" in warning


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
