from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import dask
import pandas as pd
import pytest

from grndist.data.ingest.schedule import Run
from grndist.data.store import Store
from grndist.data.view import whole
from grndist.errors import UserError
from grndist.evaluation.baselines import baseline_edges, processes
from grndist.files import WriteError
from grndist.launch.tasks import baseline_tasks, distributed, on_ray, scheduler


def leave(path: Path) -> None:
    path.touch()


def fail(path: Path) -> None:
    raise WriteError(path, "no space")


def patient() -> AbstractContextManager:
    """Time for a cluster to start on a busy machine."""
    return dask.config.set({f"distributed.comm.timeouts.{what}": "120s" for what in ("connect", "tcp")})


@pytest.fixture
def address() -> Iterator[str]:
    """A Dask cluster of one worker in this process, reached over TCP."""
    distributed = pytest.importorskip("distributed")
    with (
        patient(),
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None, protocol="tcp") as cluster,
    ):
        yield cluster.scheduler_address


def check(run: Run, folder: Path) -> None:
    run([partial(leave, folder / str(number)) for number in range(5)])
    assert sorted(file.name for file in folder.iterdir()) == list("01234")
    run([])
    with pytest.raises(WriteError, match="no space") as caught:
        run([partial(leave, folder / "5"), partial(fail, folder)])
    assert caught.value.reason == "no space"
    assert type(caught.value) is WriteError
    assert str(caught.value) == str(WriteError(folder, "no space"))


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_of_this_process(tmp_path: Path, threads: int | None):
    check(scheduler(None, threads), tmp_path)


def test_a_dask_cluster(tmp_path: Path, address: str):
    check(scheduler(address), tmp_path)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its start and its end
def test_ray(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed")
    check(on_ray, tmp_path)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_baseline_on_ray_is_that_of_one_process(store: Store):
    pytest.importorskip("ray", reason="Ray is not installed")
    here = baseline_edges(whole(store), "grnboost2", run_tasks=processes(1))
    on_workers = baseline_edges(whole(store), "grnboost2", run_tasks=baseline_tasks("local"))
    pd.testing.assert_frame_equal(on_workers.table, here.table, check_exact=True)


def test_a_dask_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch):
    cluster = pytest.importorskip("distributed").LocalCluster
    monkeypatch.setattr("grndist.launch.tasks.SECONDS_TO_ANSWER", 2)
    with (
        patient(),
        cluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp") as alone,
        pytest.raises(UserError, match="the Dask scheduler there has no worker; start one with `dask worker tcp:"),
    ):
        distributed(alone.scheduler_address)([])


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grndist.launch.tasks.SECONDS_TO_ANSWER", 0.2)
    with pytest.raises(UserError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        distributed("tcp://127.0.0.1:9")([])


@pytest.mark.parametrize(
    ("address", "threads", "words"), [("host", None, "tcp://host:8786 was expected"), ("ray", 2, "give one")]
)
def test_mistakes(address: str, threads: int | None, words: str):
    with pytest.raises(UserError, match=words):
        scheduler(address, threads)
