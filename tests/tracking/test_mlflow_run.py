import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from grndist.errors import UserError
from grndist.tracking import Tracker, TrackingConfig, open_tracker, replay
from tests.tracking.conftest import LONG, STEPS, log_all_sorts, warnings_in


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


# --- what cannot be written ---


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
    *lost, last = [warning.split(" of this run")[0] for warning in warnings_in(caplog)]
    places = ["the settings", str(checkpoint / "checkpoint.json"), "the model", "scores.json"]
    assert lost == [f"MLflow lacks {place}" for place in places]
    assert last.endswith("lacks a part")

    with pytest.raises(UserError, match=r"answers, but does not take the settings .*; this stays in .*tracking-spool"):
        replay([str(tmp_path)], print)
    (tmp_path / "mlflow-artifacts").unlink()
    replay([str(tmp_path)], print)
    assert not (tmp_path / "run" / "tracking-spool").exists()
    files = {file.path for file in client.list_artifacts(tracker.run_id)}
    assert files == {"config.yaml", "checkpoint.json", "scores.json"}
    run = client.get_run(tracker.run_id)
    (model,) = run.outputs.model_outputs
    assert client.get_logged_model(model.model_id).status == "READY"
    assert (run.info.status, len(client.get_metric_history(tracker.run_id, "EPR"))) == ("FINISHED", 1)
