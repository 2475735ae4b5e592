"""A real SQLite store, made by two processes at once, then shared by the tests; everything is read back by MLflow."""

import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grndist import tracking
from grndist.config import ConfigError, validate
from grndist.errors import UserError
from grndist.tracking import Tracker, TrackingConfig, open_tracker

# MLflow warns itself while it is imported
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

REPOSITORY = Path(__file__).parent.parent
STEPS = 400
LONG = "gene " * 2000

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


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """Undo what tracking sets for MLflow."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def root(two_runs: tuple[Path, list[str]]) -> Path:
    return two_runs[0]


@pytest.fixture(scope="module")
def client(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db", registry_uri=f"sqlite:///{root}/mlflow.db")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained GRN-VAE over six genes."""
    from safetensors.torch import save_file

    from grndist import models
    from grndist.training.checkpoint import Description

    folder = tmp_path_factory.mktemp("checkpoint") / "step-00000000"
    folder.mkdir()
    model = models.build(models.GRNVAEConfig(), 6, lambda: (np.zeros(6), np.ones(6)), seed=3)
    save_file(model.state_dict(), folder / "weights.safetensors")
    about = Description(0, {"model": {"kind": "grn_vae"}}, [f"G{number}" for number in range(6)], "d" * 64)
    (folder / "checkpoint.json").write_text(json.dumps(asdict(about)))
    return folder


@pytest.fixture(scope="module")
def logged(root: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One run with everything in it, written from an otherwise empty working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        tracker = open_tracker(TrackingConfig(), root, "everything")
        tracker.log_settings({"name": "everything", "training": {"epochs": 5, "betas": [0.9, 0.99], "note": LONG}})
        tracker.log_dataset("mdc.zarr", "d" * 64, Path("mdc.zarr"))
        for step in range(1500):
            tracker.log_metrics(step, {"loss": 1 / (1 + step), "KL (mean)": np.float32(step)})
        tracker.log_metrics(1500, {"loss": math.nan, "KL (mean)": math.inf})
        tracker.log_file(checkpoint / "checkpoint.json", "edges")
        files = {name: checkpoint / name for name in ("weights.safetensors", "checkpoint.json")}
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


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "grndist.tracking"]


def log_all_sorts(tracker: Tracker, file: Path) -> None:
    tracker.log_settings({"a": 1})
    tracker.log_dataset("store", "digest", file)
    tracker.log_metrics(1, {"loss": 1.0})
    tracker.log_file(file)
    tracker.log_model({"weights.safetensors": file})
    tracker.log_scores({"EPR": 1.0})


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
    ],
)
def test_another_uri_is_refused_with_the_way_out(uri: str, words: str):
    with pytest.raises(ConfigError, match=rf"run\.yaml is not valid:\s+uri: .*{words}"):
        validate(TrackingConfig, {"uri": uri}, "run.yaml")


# --- what is logged ---


def test_two_processes_make_and_fill_one_store_at_once(client: Any, two_runs: tuple[Path, list[str]]):
    runs = [client.get_run(run_id) for run_id in two_runs[1]]
    assert {run.info.run_name for run in runs} == {"first", "second"}
    assert runs[0].info.experiment_id == runs[1].info.experiment_id
    for run in runs:
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "loss")
        assert sorted(metric.step for metric in history) == list(range(STEPS))


def test_settings_come_back_by_key_path(client: Any, logged: Tracker):
    run = client.get_run(logged.run_id)
    assert run.info.run_name == "everything"
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "5"
    assert run.data.params["training.betas"] == "[0.9, 0.99]"


def test_a_long_setting_is_cut_as_a_param_but_whole_in_config_yaml(client: Any, logged: Tracker, tmp_path: Path):
    import yaml

    param = client.get_run(logged.run_id).data.params["training.note"]
    assert len(param) == 6000
    assert param.endswith("...")
    config = Path(client.download_artifacts(logged.run_id, "config.yaml", str(tmp_path)))
    assert yaml.safe_load(config.read_text())["training"] == {"epochs": 5, "betas": [0.9, 0.99], "note": LONG}


def test_metrics_come_back_over_all_steps(client: Any, logged: Tracker):
    history = client.get_metric_history(logged.run_id, "KL _mean_")  # letters that MLflow refuses become _
    assert sorted((metric.step, metric.value) for metric in history)[:1500] == [(step, step) for step in range(1500)]


def test_nan_stays_nan_and_infinity_becomes_the_largest_float(client: Any, logged: Tracker):
    last = client.get_run(logged.run_id).data.metrics
    assert math.isnan(last["loss"])
    assert last["KL _mean_"] == sys.float_info.max


def test_the_store_is_the_run_s_dataset(client: Any, logged: Tracker):
    run = client.get_run(logged.run_id)
    (dataset,) = [each.dataset for each in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("mdc.zarr", "d" * 36)
    assert json.loads(dataset.source)["uri"].startswith("file:///")
    assert run.data.tags["grndist.store_digest"] == "d" * 64


def test_scores_are_metrics_and_a_file(client: Any, logged: Tracker, tmp_path: Path):
    metrics = client.get_run(logged.run_id).data.metrics
    assert metrics["STRING.EPR"] == 2.09
    assert metrics["STRING.k"] == 7
    assert "STRING.AUPRC" not in metrics
    scores = json.loads(Path(client.download_artifacts(logged.run_id, "scores.json", str(tmp_path))).read_text())
    assert scores["STRING"]["AUPRC"] is None
    assert scores["definition"] == "DAZZLE"


def test_files_lie_under_the_run_root(client: Any, logged: Tracker, root: Path):
    assert [file.path for file in client.list_artifacts(logged.run_id, "edges")] == ["edges/checkpoint.json"]
    assert (root / "mlflow-artifacts" / logged.run_id / "artifacts" / "edges" / "checkpoint.json").is_file()


def test_nothing_global_of_mlflow_is_touched(logged: Tracker):
    import mlflow

    assert not mlflow.tracking.is_tracking_uri_set()
    assert mlflow.active_run() is None
    assert logging.getLogger("alembic").getEffectiveLevel() >= logging.WARNING


def test_where_names_the_store_and_the_command_that_opens_it(logged: Tracker, root: Path):
    said = "\n".join(logged.where())
    assert f"mlflow ui --backend-store-uri 'sqlite:///{root}/mlflow.db'" in said
    assert logged.run_id in said


# --- the model ---


@pytest.fixture(scope="module")
def model_folder(client: Any, logged: Tracker) -> Path:
    (output,) = client.get_run(logged.run_id).outputs.model_outputs
    return _local(client.get_logged_model(output.model_id).artifact_location)


def _local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def test_the_model_predicts_the_edges_of_its_checkpoint(
    model_folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow.pyfunc

    from grndist.inference import edges_of_checkpoint

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(str(model_folder))
    predicted = model.predict(pd.DataFrame({"k": [7]}))
    assert len(predicted) == 7
    pd.testing.assert_frame_equal(predicted, edges_of_checkpoint(checkpoint, 7).table)


def test_no_file_of_the_model_is_a_pickle(model_folder: Path):
    files = [file for file in model_folder.rglob("*") if file.is_file()]
    assert {"weights.safetensors", "checkpoint.json", "tracking_pyfunc.py", "MLmodel"} <= {file.name for file in files}
    assert not [file for file in files if file.suffix in {".pkl", ".pickle", ".pt"} or file.read_bytes()[:1] == b"\x80"]
    assert "grndist==" in (model_folder / "requirements.txt").read_text()


@pytest.mark.parametrize("asked", [[0], [-3], [5, 6], []])
def test_the_model_refuses_anything_but_one_positive_k(model_folder: Path, asked: list[int]):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(model_folder))
    with pytest.raises(UserError, match="give one row with the number of edges, at least 1"):
        model.predict(pd.DataFrame({"k": np.array(asked, dtype=np.int64)}))


def test_the_registered_model_is_the_logged_one(client: Any, logged: Tracker, model_folder: Path):
    (version,) = client.search_model_versions("name = 'grn'")
    assert version.run_id == logged.run_id
    assert _local(version.source) == model_folder


# --- continuing ---


def test_a_run_is_continued_by_its_id(client: Any, root: Path, two_runs: tuple[Path, list[str]]):
    run_id = two_runs[1][0]
    tracker = open_tracker(TrackingConfig(), root, "another name", run_id)
    tracker.log_settings({"name": "changed", "new": True})
    tracker.log_metrics(STEPS, {"loss": 0.5})
    tracker.close("KILLED")

    run = client.get_run(run_id)
    assert tracker.run_id == run_id
    assert run.info.status == "KILLED"
    assert run.data.params == {"name": "first", "new": "true"}
    assert len(client.get_metric_history(run_id, "loss")) == STEPS + 1


def test_an_unknown_id_starts_a_new_run_and_says_so(client: Any, root: Path, caplog: pytest.LogCaptureFixture):
    tracker = open_tracker(TrackingConfig(), root, "orphan", "0" * 32)
    tracker.close("FAILED")
    assert client.get_run(tracker.run_id).info.status == "FAILED"
    assert warnings_in(caplog) == [
        f"MLflow has no run {'0' * 32} to continue (other or emptied store?); a new one is started"
    ]


# --- failures: a warning, and nothing else ---


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


def test_a_run_root_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("not a folder")
    tracker = open_tracker(TrackingConfig(), tmp_path / "file" / "runs", "run")
    log_all_sorts(tracker, tmp_path / "file")
    tracker.close()
    (warning,) = warnings_in(caplog)
    assert str(tmp_path / "file" / "runs") in warning
    assert "NotADirectoryError" in warning


def test_a_database_that_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "mlflow.db").write_text("this is text, not a database" * 100)
    tracker = open_tracker(TrackingConfig(), tmp_path, "run")
    tracker.close()
    (warning,) = warnings_in(caplog)
    assert "file is not a database" in warning


def test_a_lost_file_does_not_lose_the_numbers(
    client: Any, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tracker = open_tracker(TrackingConfig(), root, "run")
    tracker.log_file(tmp_path / "edges.parquet")
    tracker.log_metrics(1, {"loss": 1.0})
    tracker.close()
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})
    (warning,) = warnings_in(caplog)
    assert f"MLflow lacks {tmp_path / 'edges.parquet'} of this run" in warning


def test_an_artifact_place_that_cannot_be_written_keeps_params_and_numbers(
    client: Any, root: Path, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "mlflow-artifacts").write_text("not a folder")
    config = TrackingConfig(uri=f"sqlite:///{root}/mlflow.db", experiment="no place")
    tracker = open_tracker(config, tmp_path, "run")
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    tracker.close()
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.params, run.data.metrics) == ("FINISHED", {"a": "1"}, {"loss": 1.0, "EPR": 1.0})
    lost = [warning.split(" of this run")[0] for warning in warnings_in(caplog)]
    places = ["the settings", str(checkpoint / "checkpoint.json"), "the model", "scores.json"]
    assert lost == [f"MLflow lacks {place}" for place in places]


def test_a_full_queue_drops_the_oldest_numbers_and_counts_them(
    client: Any, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "METRICS_HELD", 100)
    gate = threading.Event()

    def open_late() -> tracking._Run:
        gate.wait(10)
        return tracking._open_run(f"sqlite:///{root}/mlflow.db", "grndist", root, "late", "")

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


# --- names and keys ---


@given(
    st.recursive(st.integers(), lambda inner: st.dictionaries(st.text(max_size=300), inner, max_size=3), max_leaves=8)
)
@example({"": 1, ".": 2, "..": {"": 3}, "../x": 4, "a//b": 5, "a\n": 6})
def test_every_key_becomes_one_that_mlflow_takes(tree: Any):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    for key in tracking._flat(tree if isinstance(tree, dict) else {"x": tree}):
        _validate_param_name(key)
        _validate_metric_name(key)
        assert len(key) <= 250
