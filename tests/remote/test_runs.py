"""Runs at s3:// end with the same bits as runs on this machine, whatever happens on the way."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load

from grndist.data.ingest.build import write_store
from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.runs import Interrupted, RunSummary, tracked, train_run
from grndist.runs.folder import _placed
from grndist.runs.mirror import TakenOverError
from grndist.storage import Storage, StorageError, open_storage
from grndist.tracking import TrackingConfig, replay
from grndist.training import checkpoint
from tests.conftest import genes, small_counts
from tests.remote.test_storage import keys_are_checked
from tests.test_runs import CATRAN, killed, same_bits, weights, written
from tests.test_runs import load as load_run_file
from tests.tracking.conftest import closed_port

LAST_TWO = {f"checkpoints/step-{step:08d}/{name}" for step in (18, 20) for name in checkpoint.FILES}
A_RUN = {"config.yaml", "metrics.jsonl", "tracking.json", "owner"} | LAST_TWO


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def run_file(tmp_path: Path, store_path: Path) -> Path:
    return written(tmp_path / "small.yaml", CATRAN, store_path)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The last weights of the same run on this machine."""
    folder = tmp_path_factory.mktemp("here")
    counts, obs = small_counts()
    write_store(folder / "small.zarr", counts, obs, genes(12), "counts", {"name": "made here"})
    return weights(train_run(load_run_file(written(folder / "small.yaml", CATRAN, folder / "small.zarr"))).folder)


@pytest.fixture
def there(bucket: str) -> Storage:
    return open_storage(f"{bucket}/runs/small")


def train(run_file: Path, there: Storage, *overrides: str, **how: bool) -> RunSummary:
    return train_run(load_run_file(run_file, f"runs={there.url.removesuffix('/small')}", *overrides), **how)


def last_weights(there: Storage) -> dict:
    newest = checkpoint.whole(there.sizes())[-1]
    return load(there.read(f"checkpoints/{newest}/weights.safetensors"))


def steps(there: Storage) -> list[int]:
    return [json.loads(line)["step"] for line in there.read("metrics.jsonl").decode().splitlines()]


@pytest.fixture
def before_saving(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, Callable[[], None]]], None]:
    """Have something happen just before the checkpoint of a step is saved, once."""

    def arrange(events: dict[int, Callable[[], None]]) -> None:
        original = checkpoint.save

        def save(folder, state, about):
            events.pop(state.step, lambda: None)()
            return original(folder, state, about)

        monkeypatch.setattr(checkpoint, "save", save)

    return arrange


def test_a_run_at_a_url_ends_as_one_here(run_file: Path, here: dict, there: Storage, temporary_folders: Path):
    summary = train(run_file, there)
    assert summary.folder == there.url
    assert summary.checkpoint == f"{there.url}/checkpoints/step-00000020"
    assert set(there.sizes()) == A_RUN
    assert yaml.safe_load(there.read("config.yaml"))["runs"] == there.url.removesuffix("/small")
    assert steps(there) == list(range(2, 21, 2))
    assert json.loads(there.read("tracking.json"))["status"] == "FINISHED"
    assert same_bits(here, last_weights(there))
    assert not list(temporary_folders.glob("grndist-*"))


def test_store_and_run_may_both_be_at_urls(run_file: Path, here: dict, there: Storage, bucket: str, store_path: Path):
    local, remote = open_storage(store_path), open_storage(f"{bucket}/small.zarr")
    for key in local.sizes():
        remote.write(key, local.read(key))
    train(run_file, there, f"store={remote.url}", "training.epochs=2")
    train_run(load_run_file(run_file, "name=two", "training.epochs=2"))
    assert same_bits(weights(run_file.parent / "runs" / "two"), last_weights(there))
    assert yaml.safe_load(there.read("config.yaml"))["store"] == remote.url


@pytest.mark.parametrize("place", [pytest.param("step:8", marks=pytest.mark.slow), "save:9"])
def test_a_killed_run_is_resumed_from_what_had_arrived(run_file: Path, here: dict, there: Storage, place: str):
    killed(run_file, [place], "name=small", f"runs={there.url.removesuffix('/small')}")
    arrived = checkpoint.whole(there.sizes())  # that of step 6 is there before the next is saved
    assert arrived == ["step-00000003", "step-00000006"][: len(arrived)]
    assert len(arrived) == 2 or place == "step:8"
    assert train(run_file, there, resume=True).steps == 20
    assert set(there.sizes()) == A_RUN
    assert steps(there) == list(range(2, 21, 2))
    assert same_bits(here, last_weights(there))


def test_an_interrupted_run_says_its_url_and_is_resumed(
    run_file: Path, here: dict, there: Storage, temporary_folders: Path, before_saving: Callable
):
    before_saving({6: lambda: os.kill(os.getpid(), signal.SIGINT)})
    with pytest.raises(Interrupted, match=f"{there.url}/checkpoints/step-00000007 is saved"):
        train(run_file, there)
    assert json.loads(there.read("tracking.json"))["status"] == "KILLED"
    assert not list(temporary_folders.glob("grndist-*"))
    train(run_file, there, resume=True)
    assert same_bits(here, last_weights(there))


def test_half_a_checkpoint_is_none_and_is_cleared_away(
    run_file: Path, here: dict, there: Storage, before_saving: Callable
):
    before_saving({12: lambda: os.kill(os.getpid(), signal.SIGINT)})
    with pytest.raises(Interrupted):
        train(run_file, there)
    there.write("checkpoints/step-00000016/weights.safetensors", b"as far as it got")
    there.write("checkpoints/step-00000019/optimizer.safetensors", b"as far as it got")
    train(run_file, there, resume=True)
    assert set(there.sizes()) == A_RUN
    assert same_bits(here, last_weights(there))


def test_a_run_that_another_process_takes_over_stops_and_leaves_it_alone(
    run_file: Path, here: dict, there: Storage, before_saving: Callable, temporary_folders: Path
):
    before_saving({9: lambda: train(run_file, there, resume=True) and None})
    with pytest.raises(TakenOverError, match=f"{there.url}: another process has taken this run over"):
        train(run_file, there)
    assert set(there.sizes()) == A_RUN
    assert json.loads(there.read("tracking.json"))["status"] == "FINISHED"
    assert same_bits(here, last_weights(there))
    assert not list(temporary_folders.glob("grndist-*"))


def test_a_run_that_is_deleted_meanwhile_stops(run_file: Path, there: Storage, before_saving: Callable):
    before_saving({6: lambda: there.delete(there.sizes())})
    with pytest.raises(TakenOverError, match="or it was deleted"):
        train(run_file, there)
    assert there.sizes() == {}


def test_while_the_storage_refuses_the_run_goes_on_and_all_arrives_in_the_end(
    run_file: Path,
    here: dict,
    there: Storage,
    before_saving: Callable,
    s3_environment: str,
    caplog: pytest.LogCaptureFixture,
):
    refusing = keys_are_checked(s3_environment)
    before_saving({6: refusing.__enter__, 12: lambda: refusing.__exit__(None, None, None)})
    train(run_file, there)
    missing = [name for name in ("06", "09", "12") if f"step-000000{name} has not arrived there yet" in caplog.text]
    assert missing == ["06", "09"]
    assert set(there.sizes()) == A_RUN
    assert same_bits(here, last_weights(there))


def test_what_cannot_be_brought_there_in_the_end_is_kept_here(
    run_file: Path,
    here: dict,
    there: Storage,
    before_saving: Callable,
    s3_environment: str,
    temporary_folders: Path,
    caplog: pytest.LogCaptureFixture,
):
    refusing = keys_are_checked(s3_environment)
    before_saving({20: refusing.__enter__})
    try:
        with pytest.raises(StorageError, match="access was refused"):
            train(run_file, there)
    finally:
        refusing.__exit__(None, None, None)
    (kept,) = temporary_folders.glob("*/small")
    assert f"what has not arrived there is kept in {kept}" in caplog.text
    assert same_bits(here, weights(kept))
    train(run_file, there, resume=True)
    assert same_bits(here, last_weights(there))


def test_an_existing_run_is_neither_continued_nor_lost_by_accident(run_file: Path, there: Storage):
    with pytest.raises(UserError, match=f"{there.url}: there is no run to resume"):
        train(run_file, there, resume=True)
    train(run_file, there, "training.epochs=1")
    before = {key: there.read(key) for key in there.sizes()}
    with pytest.raises(UserError, match=f"{there.url} exists already; go on with --resume"):
        train(run_file, there)
    with pytest.raises(UserError, match=rf"{there.url}: --resume goes on[\s\S]*training.epochs: 1 before, 4 now"):
        train(run_file, there, resume=True)
    assert {key: there.read(key) for key in there.sizes()} == before  # its owner is still whom it was


def test_other_things_at_the_url_are_never_overwritten(run_file: Path, there: Storage):
    there.write("thesis.tex", b"years of work")
    with pytest.raises(UserError, match="exists and is not a run directory"):
        train(run_file, there, overwrite=True)
    assert there.sizes() == {"thesis.tex": 13}


def test_a_run_is_replaced_only_by_one_that_has_a_checkpoint(run_file: Path, here: dict, there: Storage):
    train(run_file, there, "training.epochs=2", "training.seed=1")
    there.write("edges.parquet", b"of the old run")
    before = {key: there.read(key) for key in there.sizes() if key != "owner"}
    with pytest.raises(UserError, match=r"lower training\.learning_rate"):
        train(run_file, there, "training.learning_rate=1e38", overwrite=True)
    assert {key: there.read(key) for key in there.sizes() if key != "owner"} == before
    train(run_file, there, overwrite=True)
    assert set(there.sizes()) == A_RUN
    assert same_bits(here, last_weights(there))


def test_a_network_is_inferred_from_a_run_at_a_url(run_file: Path, there: Storage):
    train(run_file, there)
    there.delete(key for key in there.sizes() if key.endswith("optimizer.safetensors"))  # which it does not take
    train_run(load_run_file(run_file))
    edges, local = edges_of_run(there.url, k=20), edges_of_run(run_file.parent / "runs" / "small", k=20)
    assert edges.table.equals(local.table)
    assert edges.origin == {**local.origin, "run": there.url}
    with tracked(edges.origin["run"]) as tracker:
        assert tracker.where() == ["MLflow: off (tracking.kind is none)"]
    with pytest.raises(UserError, match=f"{there.url}x is not a run directory"):
        edges_of_run(f"{there.url}x")


def test_mlflows_own_database_lies_where_one_stands(
    run_file: Path, there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config = load_run_file(run_file, f"runs={there.url}", "tracking.kind=mlflow")
    assert _placed(config) == (TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), tmp_path)
    server = config.model_copy(update={"tracking": TrackingConfig(uri="https://mlflow.example")})
    assert _placed(server)[0] == server.tracking
    local = load_run_file(run_file, "tracking.kind=mlflow")
    assert _placed(local) == (TrackingConfig(), tmp_path / "runs")


def test_what_waits_for_mlflow_is_at_the_url_and_goes_when_it_has_arrived(
    run_file: Path,
    here: dict,
    there: Storage,
    before_saving: Callable,
    tmp_path: Path,
    temporary_folders: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Stopped and resumed while the server is down, then replayed to a database; the last part goes there at once."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    track = ["tracking.kind=mlflow", f"tracking.uri=http://127.0.0.1:{closed_port()}"]
    before_saving({6: lambda: os.kill(os.getpid(), signal.SIGINT)})
    with pytest.raises(Interrupted):
        train(run_file, there, *track)
    assert {"tracking-spool/head.json", "tracking-spool/entries.jsonl"} < there.sizes().keys()
    summary = train(run_file, there, *track, resume=True)
    assert f"`grndist tracking replay {there.url}` sends it" in summary.tracking[0]
    assert same_bits(last_weights(there), here)
    assert len([key for key in there.sizes() if key.startswith("tracking-spool/files/")]) == 6  # a model's, a figure

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    said: list[str] = []
    replay([there.url.removesuffix("/small")], said.append, uri)
    assert said[0].startswith(f"{there.url}: ")
    assert there.sizes().keys() == A_RUN | {"losses.png"}
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    run_id = json.loads(there.read("tracking.json"))["run_id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == steps(there)
    assert len(client.get_run(run_id).outputs.model_outputs) == 1

    with tracked(there.url) as tracker:
        tracker.log_scores({"EPR": 2.0})
    assert client.get_run(run_id).data.metrics["EPR"] == 2.0
    assert list(temporary_folders.glob("grndist-*")) == []


def test_urls_in_a_run_file_stay_as_they_are(run_file: Path):
    config = load_run_file(run_file, "store=s3://b/s.zarr", "runs=gs://c/runs/")
    assert (config.store, config.runs) == ("s3://b/s.zarr", "gs://c/runs")
