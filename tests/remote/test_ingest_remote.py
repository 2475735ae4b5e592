"""A store at a URL: uploaded file by file, there only once its last object is."""

import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from grndist.data.ingest import IngestConfig, IngestReport
from grndist.data.ingest import run as module
from grndist.data.ingest.job import IngestInterruptedError
from grndist.data.ingest.schedule import Run, Task, inline
from grndist.data.store import COMMITTED, StoreError, is_store, open_store
from grndist.storage import StorageError, open_storage
from tests.data.ingest.building import small_pieces
from tests.data.ingest.ingesting import counts, h5ad, values_by_cell

__all__ = ["small_pieces"]

WORK = ".out.zarr.ingest"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None) -> Path:
    monkeypatch.chdir(tmp_path)
    return h5ad(tmp_path, counts(200))


def sent(source: Path, url: str, run: Run = inline, overwrite: bool = False, seed: int = 0) -> IngestReport:
    return module.ingest_files([source], url, IngestConfig(shuffle_seed=seed), overwrite, run=run)


class Counting:
    """Runs tasks in this thread; stops after some uploads."""

    def __init__(self, stop_after: int = 10**6):
        self.stop_after, self.uploads, self.others = stop_after, 0, 0

    def __call__(self, tasks: Sequence[Task]) -> None:
        """Run the tasks."""
        for task in tasks:
            if "Upload" in repr(task):
                if self.uploads == self.stop_after:
                    raise KeyboardInterrupt
                self.uploads += 1
            else:
                self.others += 1
            task()


def test_a_store_at_a_url_is_that_on_disk(source: Path, bucket: str):
    report = sent(source, f"{bucket}/out.zarr")
    store = open_store(f"{bucket}/out.zarr")
    module.ingest(source, "local.zarr", IngestConfig())
    assert report.digest == store.digest == open_store(Path("local.zarr")).digest
    assert np.array_equal(values_by_cell(store), values_by_cell(open_store(Path("local.zarr"))))
    assert {file.name for file in source.parent.iterdir()} == {"d.h5ad", "local.zarr"}


def test_an_upload_that_was_interrupted_goes_on(source: Path, bucket: str):
    url = f"{bucket}/out.zarr"
    first, second = Counting(stop_after=10), Counting()
    with pytest.raises(IngestInterruptedError, match="the same command goes on with it"):
        sent(source, url, first)
    assert (source.parent / WORK).is_dir()
    with pytest.raises(StoreError, match=r"unfinished|not a grndist store"):
        open_store(url)
    sent(source, url, second)
    whole = Counting()
    sent(source, f"{bucket}/other.zarr", whole)
    assert first.uploads + second.uploads == whole.uploads
    assert open_store(url).digest == open_store(f"{bucket}/other.zarr").digest
    assert not (source.parent / WORK).exists()


def test_a_place_that_goes_away_costs_nothing_that_is_finished(source: Path, bucket: str, s3_environment: str):
    address = f"{s3_environment}/{bucket.removeprefix('s3://')}"

    def run(tasks: Sequence[Task]) -> None:
        if tasks and "Upload" in repr(tasks[0]):
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()
        inline(tasks)

    with pytest.raises(StorageError, match="the same command goes on with it, or delete"):
        sent(source, f"{bucket}/out.zarr", run)
    urllib.request.urlopen(urllib.request.Request(address, method="PUT")).close()
    again = Counting()
    sent(source, f"{bucket}/out.zarr", again)
    assert again.others == 0
    assert is_store(f"{bucket}/out.zarr")


def test_a_store_is_replaced_only_when_asked_and_nothing_of_it_stays(source: Path, bucket: str):
    url = f"{bucket}/out.zarr"
    sent(source, url)
    open_storage(url).write("X/data/c/999", b"of a larger store")
    with pytest.raises(StoreError, match="exists already; pass --overwrite"):
        sent(source, url)
    with pytest.raises(IngestInterruptedError):
        sent(source, url, Counting(stop_after=3), overwrite=True, seed=1)
    assert not is_store(url)
    sent(source, url, overwrite=True, seed=1)
    assert open_store(url).description["shuffle_seed"] == 1
    assert "X/data/c/999" not in open_storage(url).sizes()


def test_what_is_no_store_is_not_touched(source: Path, bucket: str):
    storage = open_storage(f"{bucket}/out.zarr")
    storage.write("thesis.docx", b"...")
    with pytest.raises(StoreError, match="holds 1 files and is not a grndist store"):
        sent(source, storage.url, overwrite=True)
    storage.delete(["thesis.docx"])
    storage.write("X/data/c/0", b"...")
    with pytest.raises(StoreError, match="holds an unfinished store; pass --overwrite"):
        sent(source, storage.url)
    sent(source, storage.url, overwrite=True)
    assert COMMITTED in storage.sizes()
