"""A run whose store dies in mid-run, and comes back for the replay: a real MLflow server, and a real PostgreSQL."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests.test_cli import grndist
from tests.tracking.conftest import REPOSITORY
from tests.tracking.stores import MLflowServer, PostgreSQL, Store, postgres_program, wait_for

pytestmark = pytest.mark.slow

STEPS = 2000
RUN = {
    "model": {"kind": "catran", "embedding": 4},
    "training": {
        "steps": STEPS,
        "epochs": None,
        "cells_per_step": 60,
        "genes_per_step": 8,
        "log_every": 4,
        "threads": 1,
    },
}
# `grndist ARGUMENTS`, after which FILE has the names of the threads that have spoken to a server or a database.
WATCHED = """
import json, sys, threading
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine

threads = set()
note = lambda *about: threads.add(threading.current_thread().name)
sys.addaudithook(lambda name, about: note() if name == "socket.connect" else None)
event.listen(Engine, "before_cursor_execute", note)
event.listen(Engine, "do_connect", note)
from grndist import cli
from grndist.tracking import tracker

tracker.BATCH_SECONDS = 0.2  # so that a short run is long enough to be cut
file = Path(sys.argv.pop(1))
try:
    cli.entry()
finally:
    file.write_text(json.dumps(sorted(threads)))
"""


@pytest.fixture(params=["server", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "postgresql" and postgres_program("initdb") is None:
        pytest.skip("PostgreSQL's initdb is not installed (apt-get install postgresql)")
    with TemporaryDirectory(prefix="grndist-store-") as folder:  # pytest's are closed to the user postgres
        made: Store = (PostgreSQL if request.param == "postgresql" else MLflowServer)(Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.kill()


def test_a_store_that_dies_in_mid_run_and_comes_back(store: Store, pristine_store: Path, tmp_path: Path):
    tracking = {"uri": store.uri, "experiment": "outage"}
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(RUN | {"store": str(pristine_store), "runs": str(tmp_path / "runs"), "tracking": tracking})
    )
    run = tmp_path / "runs" / "run"
    process = started(["train", str(tmp_path / "run.yaml")], tmp_path)
    wait_for(lambda: rows(run))
    before = sent(run)
    wait_for(lambda: sent(run) > before)  # MLflow has the first numbers
    store.kill()
    steps = rows(run)[-1]["step"]
    out, err = process.communicate(timeout=300)

    assert process.returncode == 0, err
    assert steps < STEPS
    assert err.count(f"`grndist tracking replay {run}` sends it. The run itself is not affected") == 1
    assert f"it waits in {run / 'tracking-spool'}, and `grndist tracking replay {run}` sends it" in out
    threads = json.loads((tmp_path / "threads.json").read_text())
    assert "mlflow" in threads
    assert "MainThread" not in threads
    said = grndist(f"tracking replay {run}")
    assert (said.status, said.err.count("\n")) == (2, 1)

    store.start()
    killed = started(["tracking", "replay", str(run)], tmp_path)
    before = sent(run)
    wait_for(lambda: sent(run) != before)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for _ in range(2):
        said = grndist(f"tracking replay {tmp_path}")
        assert said.status == 0, said
    assert said.out == f"nothing waits for MLflow in {tmp_path}\n"
    check_complete(store.uri, run, tmp_path)


def check_complete(uri: str, run: Path, tmp_path: Path) -> None:
    """MLflow has one run, with everything that the run directory has, once."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("outage")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    about = json.loads((run / "tracking.json").read_text())
    assert (found.info.run_id, found.info.status, about["status"]) == (about["run_id"], "FINISHED", "FINISHED")
    lines = rows(run)
    assert lines[-1]["step"] == STEPS
    for key in lines[-1].keys() - {"step"}:
        points = sorted((point.step, point.value) for point in client.get_metric_history(found.info.run_id, key))
        assert points == [(line["step"], line[key]) for line in lines]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert found.data.params["training.steps"] == str(STEPS)
    assert found.data.tags["grndist.store_digest"] == config["store_digest"]
    (tmp_path / "files").mkdir(exist_ok=True)
    files = Path(client.download_artifacts(found.info.run_id, "", str(tmp_path / "files")))
    assert yaml.safe_load((files / "config.yaml").read_text()) == config
    assert (files / "figures" / "losses.png").read_bytes() == (run / "losses.png").read_bytes()
    assert len(json.loads((files / "edges" / "top.json").read_text())["data"]) == 100
    (model,) = client.search_logged_models([experiment.experiment_id])
    (output,) = found.outputs.model_outputs
    assert (model.model_id, str(model.status)) == (output.model_id, "READY")


def started(arguments: list[str], folder: Path) -> subprocess.Popen:
    """`grndist` as a program, watched."""
    return subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(folder / "threads.json"), *arguments],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def sent(run: Path) -> int:
    """Bytes of the spool that MLflow has."""
    file = run / "tracking-spool" / "sent.json"
    return json.loads(file.read_text())["upto"] if file.exists() else 0


def rows(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
