"""What waited in a spool is in MLflow once, whatever happened before and between; the store is a copy of a real one."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from grndist.errors import UserError
from grndist.tracking import Tracker, TrackingConfig, end_if_open, open_parent, open_tracker, reference, replay
from grndist.tracking.beginning import Place
from grndist.tracking.record import begun, read_record
from grndist.tracking.sender import Sender
from grndist.tracking.spool import Head, Spool, head_of, held
from tests.test_cli import grndist
from tests.tracking.conftest import closed_port, kinds, log_all_sorts, warnings_in

NO_STORE = "this is text, not a database" * 100


class Store:
    """An SQLite store that can be away: then another file stands in its place."""

    def __init__(self, made: Path, root: Path):
        self.root, self.file, self.aside = root, root / "mlflow.db", root / "away.db"
        shutil.copy(made, self.file)

    def goes(self) -> None:
        self.file.rename(self.aside)
        self.file.write_text(NO_STORE)

    def comes(self) -> None:
        self.aside.rename(self.file)

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        uri = f"sqlite:///{self.file}"
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def runs(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name("ours")
        return list(self.client.search_runs([experiment.experiment_id])) if experiment else []

    def contents(self, run_id: str) -> dict[str, Any]:
        """All that there is of a run, as often as it is there."""
        client = self.client
        run = client.get_run(run_id)
        models = client.search_logged_models([run.info.experiment_id])
        return {
            "runs": len(self.runs()),
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "datasets": len(run.inputs.dataset_inputs),
            "files": sorted(file.path for file in client.list_artifacts(run_id)),
            "models": [(model.status, model.source_run_id) for model in models],
            "outputs": len(run.outputs.model_outputs),
            "points": {key: sorted(points(client, run_id, key)) for key in run.data.metrics},
        }


def points(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, key)]


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Store:
    return Store(root / "mlflow.db", tmp_path)


CONFIG = TrackingConfig(experiment="ours", tags={"sweep": "s1"})


def logged_while_away(store: Store, checkpoint: Path, name: str = "run") -> Path:
    """A run directory whose spool has everything, and nothing of it was sent."""
    store.goes()
    folder = store.root / name
    folder.mkdir()
    recorder = begun(folder, CONFIG)
    tracker = open_tracker(CONFIG, store.root, name, place=Place(folder, str(folder)), recorder=recorder, is_run=True)
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    for step in range(2, 40):
        tracker.log_metrics(step, {"loss": 1 / step})
    tracker.close()
    store.comes()
    assert store.runs() == []
    return folder


def test_a_run_that_began_and_ended_while_the_store_was_away_is_there_once(
    store: Store, checkpoint: Path, caplog: pytest.LogCaptureFixture
):
    folder = logged_while_away(store, checkpoint)
    (warning,) = warnings_in(caplog)
    assert "file is not a database" in warning
    lines: list[str] = []
    replay([str(store.root)], lines.append)
    record = read_record(folder)
    assert record is not None
    assert lines == [
        f"{folder}: {len(found_usage(store, record.run_id)) + 40} values, 1 settings, 1 files, 1 scores, 1 models -> "
        f"sqlite:///{store.file}, run {record.run_id}, FINISHED"
    ]
    found = store.contents(record.run_id)
    assert found["points"]["loss"] == [(step, 1 / step) for step in range(1, 40)]
    assert (found["runs"], found["status"], found["params"]) == (1, "FINISHED", {"a": "1"})
    assert (found["models"], found["outputs"], found["datasets"]) == ([("READY", record.run_id)], 1, 1)
    assert found["files"] == ["checkpoint.json", "config.yaml", "scores.json"]
    assert found["tags"]["sweep"] == "s1"
    assert not (folder / "tracking-spool").exists()

    replay([str(store.root)], lines.append)
    assert lines[-1] == f"nothing waits for MLflow in {store.root}"
    assert store.contents(record.run_id) == found


def found_usage(store: Store, run_id: str) -> list[str]:
    """What was measured of the machine."""
    found = [key for key in store.client.get_run(run_id).data.metrics if key.startswith("system/")]
    assert {"system/cpu_percent", "system/memory_megabytes"} <= set(found)
    return found


def test_what_arrived_before_a_kill_could_note_it_is_not_sent_again(store: Store, checkpoint: Path):
    """Everything has arrived, the model and the run, too, but nothing of that was noted."""
    folder = logged_while_away(store, checkpoint)
    spool = opened(folder)
    sender = Sender(spool)
    sender.send()
    run_id = sender.open().run_id
    found = store.contents(run_id)
    spool.sent.upto = 0
    spool.save_sent()
    spool.head = spool.head.model_copy(update={"run_id": "x"})
    spool.remember("")
    spool.release()
    lines: list[str] = []
    replay([str(folder)], lines.append)
    assert lines[0].startswith(f"{folder}: 1 settings, 1 files, 1 scores, 1 models -> ")  # and no values
    assert store.contents(run_id) == found


def test_a_model_that_a_kill_has_cut_short_is_logged_once(store: Store, checkpoint: Path):
    folder = logged_while_away(store, checkpoint)
    spool = opened(folder)
    run = Sender(spool).open()
    (model,) = [placed for placed in spool.entries() if placed.entry["kind"] == "model"]
    spool.sent.models[str(model.start)] = []
    spool.save_sent()
    half = run.client.create_logged_model(run.experiment_id, "network", run.run_id, model_type="grndist")
    spool.release()
    replay([str(folder)], print)
    found = store.contents(run.run_id)
    assert (found["models"], found["outputs"]) == ([("READY", run.run_id)], 1)
    assert half.model_id not in [output.model_id for output in store.client.get_run(run.run_id).outputs.model_outputs]


def opened(folder: Path) -> Spool:
    lock, head = held(folder / "tracking-spool"), head_of(folder / "tracking-spool")
    assert lock is not None
    assert head is not None
    return Spool(folder / "tracking-spool", lock, head)


def test_a_killed_run_has_its_numbers_and_is_not_left_open(store: Store, checkpoint: Path):
    folder = logged_while_away(store, checkpoint)
    entries = folder / "tracking-spool" / "entries.jsonl"
    lines = entries.read_bytes().splitlines(keepends=True)
    assert kinds(folder / "tracking-spool")[-2:] == ["usage", "status"]
    entries.write_bytes(b"".join(lines[:-3]) + lines[-3][:-9])  # without the end, and a line is cut short
    rows = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 42)]
    (folder / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 43, "lo']))
    replay([str(folder)], print)
    record = read_record(folder)
    assert record is not None
    found = store.contents(record.run_id)
    assert found["points"]["loss"] == [(step, 1 / step) for step in range(1, 42)]
    assert (found["status"], record.status) == ("KILLED", "KILLED")


def test_a_run_goes_on_where_its_spool_ended(store: Store, checkpoint: Path):
    """Away in the first part, there in the second: what waited comes first, and repeated steps count once."""
    folder = logged_while_away(store, checkpoint)
    with (folder / "tracking-spool" / "entries.jsonl").open("ab") as file:
        file.write(b'{"kind": "metrics", "st')
    recorder = begun(folder, CONFIG)
    tracker = open_tracker(CONFIG, store.root, "run", place=Place(folder, ""), recorder=recorder, is_run=True)
    for step in range(35, 50):
        tracker.log_metrics(step, {"loss": 1 / step})
    tracker.close()
    found = store.contents(tracker.run_id)
    assert found["points"]["loss"] == [(step, 1 / step) for step in range(1, 50)]
    assert (found["runs"], found["status"], recorder.record.run_id) == (1, "FINISHED", tracker.run_id)
    assert not (folder / "tracking-spool").exists()


def test_a_run_that_goes_on_keeps_its_spool(store: Store):
    folder = store.root / "run"
    tracker = open_tracker(CONFIG, store.root, "run")
    lines: list[str] = []
    replay([str(store.root)], lines.append)
    assert lines == [f"{folder}: the run goes on, and sends this itself"]
    other = open_tracker(CONFIG, store.root, "run", tracker.run_id)  # as `infer` on a run that goes on
    other.log_scores({"EPR": 2.0})
    other.close("")
    tracker.log_metrics(1, {"loss": 3.0})
    tracker.close()
    assert store.client.get_run(tracker.run_id).data.metrics == {"EPR": 2.0, "loss": 3.0}
    assert list(folder.iterdir()) == []


# --- elsewhere ---


def test_nothing_is_lost_when_the_server_still_does_not_answer(tmp_path: Path, checkpoint: Path):
    config = TrackingConfig(uri=f"http://127.0.0.1:{closed_port()}")
    tracker = open_tracker(config, tmp_path, "run")
    log_all_sorts(tracker, checkpoint / "checkpoint.json")
    tracker.close()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    said = grndist(f"tracking replay {tmp_path}")
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert f"MLflow at {config.uri} does not answer" in said.err
    assert "what waits for it stays" in said.err
    assert {path.name for path in map(Path, before)} <= {path.name for path in tmp_path.rglob("*")}


def test_a_folder_that_is_not_there(tmp_path: Path):
    said = grndist(f"tracking replay {tmp_path / 'none'}")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "there is no such folder" in said.err


def test_runs_can_be_sent_to_another_store_unless_a_part_is_in_theirs(store: Store, tmp_path: Path):
    config = TrackingConfig(uri=f"http://127.0.0.1:{closed_port()}", experiment="ours")
    tracker = open_tracker(config, store.root, "run")
    tracker.log_metrics(1, {"loss": 0.5})
    tracker.close()
    said = grndist(f"tracking replay {store.root} --uri sqlite:///{store.file}")
    assert said.status == 0, said
    (run,) = store.runs()
    assert (run.info.run_name, run.data.metrics) == ("run", {"loss": 0.5})

    half = open_tracker(config, store.root, "half", "f" * 32)
    half.close()
    with pytest.raises(UserError, match=r"a part of this run is in http://.* already; leave out --uri"):
        replay([str(store.root)], print, f"sqlite:///{store.file}")


def test_a_spool_at_a_url_is_sent_and_deleted_there(store: Store, checkpoint: Path):
    folder = logged_while_away(store, checkpoint)
    replay([f"file://{store.root}"], print)
    (run,) = store.runs()
    record = read_record(folder)
    assert record is not None
    assert (run.info.run_id, run.info.status) == (record.run_id, "FINISHED")
    assert [path for path in (folder / "tracking-spool").rglob("*") if path.is_file()] == []


# --- parents and children ---


def test_trials_stand_below_their_sweep_whatever_was_away(store: Store, checkpoint: Path):
    store.goes()
    sweep = open_parent(CONFIG, store.root, "sweep", tags={"kind": "sweep"})
    assert reference(sweep) == f"key:{sweep.key}"
    sweep.log_settings({"trials": 2})
    child = CONFIG.model_copy(update={"parent": reference(sweep), "log_network": False})
    early = open_tracker(child, store.root, "a trial")  # found before its parent
    log_all_sorts(early, checkpoint / "checkpoint.json")
    early.close()
    sweep.close("KILLED")
    store.comes()
    replay([str(store.root)], print)

    sweep = open_parent(CONFIG, store.root, "sweep")
    assert reference(sweep) == sweep.run_id
    late = open_tracker(child.model_copy(update={"parent": reference(sweep)}), store.root, "trial b")
    late.close()
    sweep.close()
    runs = {run.info.run_name: run for run in store.runs()}
    assert set(runs) == {"sweep", "a trial", "trial b"}
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs.values()} == {None, sweep.run_id}
    assert "mlflow.parentRunId" not in runs["sweep"].data.tags
    assert (runs["sweep"].info.status, runs["sweep"].data.params) == ("FINISHED", {"trials": "2"})
    assert runs["sweep"].data.tags["kind"] == "sweep"
    assert runs["a trial"].outputs.model_outputs == []  # log_network is false


def test_a_run_whose_process_is_gone_is_ended_once(store: Store):
    tracker = open_tracker(CONFIG, store.root, "run")
    assert end_if_open(CONFIG, store.root, tracker.run_id)
    assert store.client.get_run(tracker.run_id).info.status == "KILLED"
    assert not end_if_open(CONFIG, store.root, tracker.run_id, "FAILED")
    assert not end_if_open(CONFIG, store.root, "")
    tracker.close("FAILED")
    assert not end_if_open(CONFIG, store.root, tracker.run_id)
    assert store.client.get_run(tracker.run_id).info.status == "FAILED"


def test_a_store_that_is_away_does_not_stop_who_ends_runs(store: Store, caplog: pytest.LogCaptureFixture):
    store.goes()
    assert not end_if_open(CONFIG, store.root, "f" * 32)
    (warning,) = warnings_in(caplog)
    assert "may be left open" in warning


# --- edges ---


def test_the_strongest_edges_are_a_table_that_mlflow_reads(store: Store, tmp_path: Path):
    table = pd.DataFrame({"regulator": ["a", "b"] * 75, "target": "c", "weight": range(150, 0, -1)})
    (tmp_path / "edges.parquet").write_bytes(b"edges")
    tracker: Tracker = open_tracker(CONFIG, store.root, "run")
    tracker.log_edges(tmp_path / "edges.parquet", table)
    tracker.log_edges(tmp_path / "edges.parquet", table)
    tracker.close()
    (run,) = store.runs()
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "edges/top.json", "type": "table"}]
    read = store.client.download_artifacts(run.info.run_id, "edges/top.json", str(tmp_path))
    pd.testing.assert_frame_equal(pd.read_json(read, orient="split"), table.head(100))  # as MLflow's `load_table`
    assert [file.path for file in store.client.list_artifacts(run.info.run_id, "edges")] == [
        "edges/edges.parquet",
        "edges/top.json",
    ]


# --- the spool itself ---


def test_a_spool_that_was_half_deleted_is_passed_over(tmp_path: Path):
    folder = tmp_path / "run" / "tracking-spool"
    folder.mkdir(parents=True)
    (folder / "entries.jsonl").write_text('{"kind": "status"')
    lines: list[str] = []
    replay([str(tmp_path)], lines.append)
    assert lines == [f"nothing waits for MLflow in {tmp_path}"]


def test_files_are_kept_as_they_were(tmp_path: Path):
    folder = tmp_path / "tracking-spool"
    folder.mkdir()
    lock = held(folder)
    assert lock is not None
    spool = Spool(folder, lock, Head(config=CONFIG, root="", name="", run="", key="k"))
    (tmp_path / "a.txt").write_text("first")
    kept = spool.adopt(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("second")
    os.replace(tmp_path / "b.txt", tmp_path / "a.txt")  # noqa: PTH105 - as everything in grndist is written
    assert (folder / kept).read_text() == "first"
    assert held(folder) is None
    spool.remove()
    assert not folder.exists()
