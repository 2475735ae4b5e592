"""A real SQLite store, made by two processes at once, then shared by the tests; everything is read back by MLflow."""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grndist.tracking import Tracker, TrackingConfig, open_tracker
from tests.test_cli import done
from tests.tracking.networks import CATRAN, DAZZLE, DIRECTED, UNTRACKED, small_store, trained

REPOSITORY = Path(__file__).parents[2]
STEPS = 400
LONG = "gene " * 2000
EVERYTHING = [
    "settings",
    "dataset",
    "metrics",
    "file",
    "model",
    "scores",
    "status",
]  # that `log_all_sorts` and a close log

ONE_PROCESS = f"""
import sys
from pathlib import Path
from grndist.tracking import TrackingConfig, open_tracker

root, name = Path(sys.argv[1]), sys.argv[2]
tracker = open_tracker(TrackingConfig(), root, name)
tracker.log_settings({{"name": name}})
for step in range({STEPS}):
    tracker.log_metrics(step, {{"loss": float(step)}})
tracker.close()
print(tracker.run_id)
"""


@pytest.fixture(scope="package", autouse=True)
def _environment() -> Iterator[None]:
    """Undo what tracking sets for MLflow."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="package")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run root whose store two processes made and filled at the same time, and the two run ids."""
    root = tmp_path_factory.mktemp("tracking") / "runs of two"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_PROCESS, str(root), name],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("first", "second")
    ]  # fmt: skip
    answers = [process.communicate(timeout=120) for process in processes]
    assert [said for _, said in answers] == ["", ""]
    return root, [run_id.strip() for run_id, _ in answers]


@pytest.fixture(scope="package")
def root(two_runs: tuple[Path, list[str]]) -> Path:
    return two_runs[0]


@pytest.fixture(scope="package")
def client(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db", registry_uri=f"sqlite:///{root}/mlflow.db")


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained GRN-VAE over six genes."""
    from safetensors.torch import save_file

    from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
    from grndist.training.checkpoint import Description

    folder = tmp_path_factory.mktemp("checkpoint") / "step-00000000"
    folder.mkdir()
    model = GRNVAE(GRNVAEConfig(), 6, seed=3)
    save_file(model.state_dict(), folder / "weights.safetensors")
    about = Description(0, {"model": {"kind": "grn_vae"}}, [f"G{number}" for number in range(6)], "d" * 64)
    (folder / "checkpoint.json").write_text(json.dumps(asdict(about)))
    return folder


@pytest.fixture(scope="package")
def logged(root: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One run with everything in it, written from an otherwise empty working directory."""
    from grndist.runs.logged import files_of, strongest

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        tracker = open_tracker(TrackingConfig(), root, "everything")
        tracker.log_settings({"name": "everything", "training": {"epochs": 5, "betas": [0.9, 0.99], "note": LONG}})
        tracker.log_dataset("mdc.zarr", "d" * 64, Path("mdc.zarr"))
        for step in range(1500):
            tracker.log_metrics(step, {"loss": 1 / (1 + step), "KL (mean)": np.float32(step)})
        tracker.log_metrics(1500, {"loss": math.nan, "KL (mean)": math.inf})
        tracker.log_file(checkpoint / "checkpoint.json", "edges")
        (checkpoint.parent / "config.yaml").write_text("name: everything\n")
        edges = strongest("runs/everything", checkpoint)
        files = files_of("runs/everything", checkpoint.parent / "config.yaml", checkpoint, checkpoint.parent, edges)
        tracker.log_model(files, registered_model_name="grn")
        tracker.log_scores({"STRING": {"EPR": np.float64(2.09), "k": 7, "AUPRC": None}, "definition": "DAZZLE"})
        tracker.close()
        assert list(Path.cwd().iterdir()) == []  # MLflow's default store is made where one stands
    return tracker


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


def kinds(spool: Path) -> list[str]:
    """What waits in a spool, in order."""
    return [json.loads(line)["kind"] for line in (spool / "entries.jsonl").read_text().splitlines()]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("grndist.tracking")]


def log_all_sorts(tracker: Tracker, file: Path) -> None:
    tracker.log_settings({"a": 1})
    tracker.log_dataset("store", "digest", file)
    tracker.log_metrics(1, {"loss": 1.0})
    tracker.log_file(file)
    tracker.log_model({"weights.safetensors": file})
    tracker.log_scores({"EPR": 1.0})


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and tracked runs of every kind of model, some of them registered.

    first (scored) and second are grn 1 and 2, second is other 1, vectors (CaTran) vectors 1; directed is CaTran-D, and
    apart is not tracked.
    """
    folder = tmp_path_factory.mktemp("registered")
    small_store(folder)
    trained(folder, "first", DAZZLE)
    trained(folder, "second", DAZZLE, "training.seed=7")
    trained(folder, "vectors", CATRAN)
    trained(folder, "directed", DIRECTED)
    trained(folder, "apart", CATRAN | UNTRACKED)
    with contextlib.chdir(folder):
        done("infer runs/first --all")
        done("evaluate runs/first/edges.parquet --reference small.network.tsv")
        done("models register runs/first --name grn --alias champion")
        done("models register runs/second --name grn")
        done("models register runs/second --name other --alias only")
        done("models register runs/vectors --name vectors --alias now")
    return folder
