"""Ingests that are killed, interrupted or fail: what is finished is gone on with, what was there stays."""

import logging
import random
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from grndist.data.ingest import IngestConfig, IngestReport, ingest
from grndist.data.ingest import run as module
from grndist.data.ingest.job import IngestInterruptedError, Places, check_space, cut
from grndist.data.ingest.parts import MatrixRows
from grndist.data.ingest.schedule import Run, Task, inline
from grndist.data.sources import SourceError
from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.files import WriteError, locked
from tests.conftest import small_counts
from tests.data.ingest.building import small_pieces, started
from tests.data.ingest.ingesting import LABELS, counts, h5ad

__all__ = ["small_pieces"]

WORK = ".out.zarr.ingest"


def source(folder: Path, n_cells: int = 1000) -> Path:
    """Nine parts and seven shards, in small pieces."""
    return h5ad(folder, counts(n_cells), perturbation=(LABELS * n_cells)[:n_cells])


def stopped(after: int, by: Callable[[], None]) -> Run:
    """Runs tasks in this thread, and something else instead of number `after`."""
    left = iter(range(10**6))

    def run(tasks: list[Task]) -> None:
        for task in tasks:
            if next(left) == after:
                by()
            task()

    return run


def interrupt() -> None:
    raise KeyboardInterrupt


def again(path: Path, config: IngestConfig | None = None, **options) -> IngestReport:
    return module.ingest_files([path], path.parent / "out.zarr", config or IngestConfig(), **options)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.fixture
def undisturbed(tmp_path: Path, small_pieces: None) -> tuple[Path, str]:
    """A source, and the digest of its store."""
    path = source(tmp_path)
    return path, ingest(path, tmp_path / "expected.zarr", IngestConfig()).digest


# --- killed ---


def killed_and_finished(path: Path, digest: str, pieces: int, delay: float, overwrite: bool = False) -> None:
    """Kill an ingest when `pieces` files are done and a little later; the same again ends as if nothing had been."""
    store = path.parent / "out.zarr"
    process = started([path], store, IngestConfig(), overwrite)
    work = path.parent / WORK
    while process.poll() is None and sum(1 for _ in work.glob("*/*.[jn][sp]*")) < pieces:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL or delay
    process.stdout.close()
    process.stderr.close()
    if store.exists() and not overwrite:
        assert open_store(store).digest == digest
        with pytest.raises(UserError, match="exists already"):
            again(path)
    else:
        assert again(path, overwrite=overwrite).digest == digest
    assert open_store(store).digest == digest
    assert names(path.parent) == {"d.h5ad", "expected.zarr", "out.zarr"}


@pytest.mark.parametrize(
    "pieces", [pytest.param(2, marks=pytest.mark.slow), 7, pytest.param(13, marks=pytest.mark.slow)]
)
def test_a_killed_ingest_goes_on(undisturbed: tuple[Path, str], pieces: int):
    killed_and_finished(*undisturbed, pieces=pieces, delay=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_an_ingest_killed_at_a_random_moment_goes_on(undisturbed: tuple[Path, str], seed: int):
    rng = random.Random(seed)
    path, digest = undisturbed
    overwrite = seed % 2 == 1
    if overwrite:
        ingest(path, path.parent / "out.zarr", IngestConfig(shuffle_seed=1))
    killed_and_finished(path, digest, rng.randrange(18), rng.uniform(0, 0.05), overwrite)


def test_what_is_left_of_an_ingest_killed_after_its_end_is_removed(tmp_path: Path):
    path = source(tmp_path)
    again(path)
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "committing").write_text("of another store")
    with pytest.raises(UserError, match="exists already"):
        again(path)
    assert WORK in names(tmp_path)
    (tmp_path / WORK / "committing").write_text(open_store(tmp_path / "out.zarr").digest)
    with pytest.raises(UserError, match="exists already"):
        again(path)
    assert names(tmp_path) == {"d.h5ad", "out.zarr"}


class Counting:
    """Runs tasks in this thread and counts them."""

    done = 0

    def __call__(self, tasks: Sequence[Task]) -> None:
        """Run the tasks."""
        self.done += len(tasks)
        inline(tasks)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_that_is_stopped_on_its_way_to_its_place_is_not_built_again(
    undisturbed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, overwrite: bool
):
    path, digest = undisturbed
    if overwrite:
        ingest(path, path.parent / "out.zarr", IngestConfig(shuffle_seed=1))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: interrupt() if (path.parent / WORK / "ready").exists() else None)
        with pytest.raises(IngestInterruptedError, match="the same command goes on"):
            again(path, overwrite=overwrite)
    counting = Counting()
    assert again(path, overwrite=overwrite, run=counting).digest == digest
    assert counting.done == 0
    assert open_store(path.parent / "out.zarr").digest == digest
    assert names(path.parent) == {"d.h5ad", "expected.zarr", "out.zarr"}


def test_a_store_that_was_replaced_is_not_taken_for_the_finished_one(undisturbed: tuple[Path, str]):
    path, digest = undisturbed
    store, work = path.parent / "out.zarr", path.parent / WORK
    ingest(path, store, IngestConfig(shuffle_seed=1))
    with pytest.raises(IngestInterruptedError):
        again(path, overwrite=True, run=stopped(13, interrupt))
    (work / "committing").write_text(digest)
    store.rename(work / "ready")  # as after the exchange; what was finished is in its place, and then removed
    assert again(path, overwrite=True).digest == open_store(store).digest == digest
    assert names(path.parent) == {"d.h5ad", "expected.zarr", "out.zarr"}


# --- interrupted ---


@pytest.mark.parametrize("after", [1, 4, 13])
def test_an_interrupted_ingest_says_how_to_go_on(
    undisturbed: tuple[Path, str], caplog: pytest.LogCaptureFixture, after: int
):
    path, digest = undisturbed
    with pytest.raises(IngestInterruptedError, match=rf"the same command goes on with it, or delete .*{WORK}"):
        again(path, run=stopped(after, interrupt))
    assert not (path.parent / "out.zarr").exists()
    with caplog.at_level(logging.INFO):
        assert again(path).digest == digest
    assert "going on with" in caplog.text
    n_parts = int(caplog.text.partition(" of ")[2].split()[0])
    done = min(after - 1, n_parts)
    assert f"{done} of {n_parts} parts and {max(after - 1 - n_parts, 0)} shards are done" in caplog.text
    assert names(path.parent) == {"d.h5ad", "expected.zarr", "out.zarr"}


def test_another_command_begins_anew(undisturbed: tuple[Path, str], caplog: pytest.LogCaptureFixture):
    path, digest = undisturbed
    with pytest.raises(IngestInterruptedError):
        again(path, IngestConfig(shuffle_seed=7), run=stopped(4, interrupt))
    with caplog.at_level(logging.INFO):
        assert again(path).digest == digest
    assert "an unfinished ingest of something else is removed" in caplog.text
    assert "going on" not in caplog.text


def test_a_source_that_was_changed_begins_anew(undisturbed: tuple[Path, str]):
    path, _ = undisturbed
    with pytest.raises(IngestInterruptedError):
        again(path, run=stopped(6, interrupt))
    source(path.parent, 990)
    report = again(path)
    assert report.n_cells == 990
    assert report.digest == ingest(path, path.parent / "new.zarr", IngestConfig()).digest


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, small_pieces: None):
    path = source(tmp_path)

    def change() -> None:
        path.touch()

    with pytest.raises(SourceError, match=r"d\.h5ad was changed while it was read"):
        again(path, run=stopped(5, change))
    assert names(tmp_path) == {"d.h5ad"}


def test_two_ingests_of_one_store_at_once(tmp_path: Path):
    path = source(tmp_path)
    (tmp_path / WORK).mkdir()
    with locked(tmp_path / WORK / "lock", "busy"), pytest.raises(UserError, match="another ingest is at work there"):
        again(path)
    again(path)
    assert names(tmp_path) == {"d.h5ad", "out.zarr"}


def test_the_work_folder_can_be_elsewhere(undisturbed: tuple[Path, str], tmp_path: Path):
    path, digest = undisturbed
    with pytest.raises(UserError, match="no such folder to work in"):
        again(path, work=tmp_path / "work")
    (tmp_path / "work").mkdir()
    with pytest.raises(IngestInterruptedError, match=r"delete .*/work/\.out\.zarr\.ingest and .*/\.out\.zarr\.ingest"):
        again(path, work=tmp_path / "work", run=stopped(4, interrupt))
    assert (tmp_path / "work" / WORK / "parts").is_dir()
    assert again(path, work=tmp_path / "work").digest == digest
    assert names(tmp_path) == {"d.h5ad", "expected.zarr", "out.zarr", "work"}
    assert names(tmp_path / "work") == set()


# --- failures ---


@pytest.mark.parametrize("after", [1, 3, 5])
@pytest.mark.parametrize("damage", ["remove", "truncate"])
def test_a_source_that_breaks_leaves_what_was_there(tmp_path: Path, small_pieces: None, after: int, damage: str):
    path = source(tmp_path)
    again(path)
    digest = open_store(tmp_path / "out.zarr").digest

    def harm() -> None:
        if damage == "remove":
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)

    with pytest.raises(UserError, match=r"d\.h5ad"):
        again(path, overwrite=True, run=stopped(after, harm))
    assert open_store(tmp_path / "out.zarr").digest == digest
    assert (WORK in names(tmp_path)) == (after > 1)  # where a part was finished


def begun(path: Path, run: Run | None = None) -> int:
    """Interrupt an ingest and give the number of its finished parts."""
    with pytest.raises(IngestInterruptedError):
        again(path, run=run or stopped(6, interrupt))
    return pieces(path)


def pieces(path: Path) -> int:
    return sum(1 for _ in (path.parent / WORK).glob("parts/*.json"))


def test_a_source_that_is_out_of_reach_for_a_while(undisturbed: tuple[Path, str]):
    path, digest = undisturbed
    n_parts = begun(path)
    aside = path.rename(path.parent / "elsewhere")
    with pytest.raises(SourceError, match=r"d\.h5ad: no such file"):
        again(path)
    assert pieces(path) == n_parts == 5
    aside.rename(path)

    def away() -> None:
        path.rename(aside)

    with pytest.raises(UserError, match=r"d\.h5ad is not readable .* the same command goes on with it, or delete"):
        again(path, run=stopped(2, away))
    assert pieces(path) > n_parts
    aside.rename(path)
    with pytest.raises(UserError, match=r"d\.h5ad: no such file .* the same command goes on with it"):
        again(path, run=stopped(8, away))  # after the last part was read
    aside.rename(path)
    assert again(path).digest == digest


def test_a_table_of_cells_that_is_out_of_reach_for_a_while(tmp_path: Path, small_pieces: None):
    path, cells = source(tmp_path), tmp_path / "cells.csv"
    cells.write_text("cell,batch\n" + "".join(f"c{number},b\n" for number in range(1000)))
    with pytest.raises(IngestInterruptedError):
        again(path, IngestConfig(cells_table=cells), run=stopped(6, interrupt))
    aside = cells.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="no such file; --cells-table takes"):
        again(path, IngestConfig(cells_table=cells))
    assert pieces(path) == 5
    aside.rename(cells)
    assert again(path, IngestConfig(cells_table=cells)).n_cells == 1000


def unreachable(tasks: Sequence[Task]) -> None:
    raise UserError("no scheduler answers")


def test_a_scheduler_that_does_not_answer(undisturbed: tuple[Path, str]):
    path, digest = undisturbed
    with pytest.raises(UserError) as caught:
        again(path, run=unreachable)
    assert str(caught.value) == "no scheduler answers"
    assert WORK not in names(path.parent)  # nothing was finished
    n_parts = begun(path)
    with pytest.raises(UserError, match="no scheduler answers; what is finished stays: the same command goes on"):
        again(path, run=unreachable)
    assert pieces(path) == n_parts
    assert again(path).digest == digest


def test_pieces_go_where_the_same_command_would_fail_again(tmp_path: Path, small_pieces: None):
    values = counts(1000)
    values[990, 1] = -1
    path = h5ad(tmp_path, values)
    begun(path)
    with pytest.raises(SourceError, match="gene 'JAK2' in cell 'c990' is -1"):
        again(path)
    assert names(tmp_path) == {"d.h5ad"}


def test_wrong_fractions_of_the_split_cost_nothing_that_is_finished(tmp_path: Path):
    with pytest.raises(UserError, match="fractions of train, validation and test"):
        again(source(tmp_path), IngestConfig(split=(0.5, 0.2, 0.2)), run=unreachable)
    assert names(tmp_path) == {"d.h5ad"}


def test_a_full_disk_is_one_message_and_the_rest_is_gone_on_with(undisturbed: tuple[Path, str]):
    path, digest = undisturbed
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    process = started([path], path.parent / "out.zarr", IngestConfig(), setup=ignore + limit)
    out, error = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert "out.zarr: could not be written (File too large); nothing was changed there; free some space" in error
    assert "the same command goes on with it" in error
    assert "Traceback" not in error
    assert not (path.parent / "out.zarr").exists()
    assert again(path).digest == digest
    assert names(path.parent) == {"d.h5ad", "expected.zarr", "out.zarr"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 3000


def test_space_is_checked_first(tmp_path: Path):
    places = Places(tmp_path, tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"about 57741\d\d\.\d\d GiB are needed there and .* GiB are free; free some"):
        check_space(places, 10**15, spilled=False)
    check_space(places, 10**6, spilled=False)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Free bytes of the disks below each path, as they are told to whoever asks."""
    told: dict[Path, int] = {}

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=next(size for path, size in told.items() if folder.is_relative_to(path)))

    monkeypatch.setattr("shutil.disk_usage", usage)
    return told


def test_what_is_written_already_needs_no_room(tmp_path: Path, free: dict[Path, int]):
    places = Places(tmp_path / "work", tmp_path / "beside", tmp_path / "s.zarr")
    for folder, content in ((places.work / "parts", 3_000), (places.store, 2_000)):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * content)
    free[tmp_path] = 1_200  # 1,000 values need 4,000 spilled and 2,200 in the store: both folders are on one disk
    check_space(places, 1000, spilled=False)
    free[tmp_path] = 1_199
    with pytest.raises(UserError, match="are needed there"):
        check_space(places, 1000, spilled=False)
    free[tmp_path] = 200
    check_space(places, 1000, spilled=True)
    free[tmp_path] = 199
    with pytest.raises(UserError, match="choose another place for the store"):
        check_space(places, 1000, spilled=True)


def test_the_disk_of_the_store_is_asked_where_the_work_is_on_another(tmp_path: Path, free: dict[Path, int]):
    places = Places(tmp_path / "work", tmp_path / "beside", tmp_path / "s.zarr")
    for folder in places.folders:
        folder.mkdir()
    free |= {places.work: 0, places.beside: 10**6}
    check_space(places, 1000, spilled=True)


def test_too_little_room_to_go_on_keeps_what_is_finished(undisturbed: tuple[Path, str], free: dict[Path, int]):
    path, digest = undisturbed
    free[path.parent] = 10**9
    begun(path)
    free[path.parent] = 0
    with pytest.raises(UserError, match=r"are needed there and 0\.00 GiB are free.*what is finished stays"):
        again(path)
    assert pieces(path) == 5
    free[path.parent] = 10**9
    assert again(path).digest == digest


def test_a_failed_write_keeps_its_words_in_another_process():
    import pickle

    error = pickle.loads(pickle.dumps(WriteError(Path("a"), "disk full", "buy another")))
    assert str(error) == "a: could not be written (disk full); nothing was changed there; buy another"


def test_parts_cover_every_row_once():
    rows = [MatrixRows(small_counts(n)[0]) for n in (10, 3, 1)]
    parts = cut(rows, [1000, 2, 0], 150)
    assert [(a, b) for source, a, b in parts if source == 0] == [
        (0, 1), (1, 2), (2, 4), (4, 5), (5, 7), (7, 8), (8, 10),
    ]  # fmt: skip
    assert [part for part in parts if part[0]] == [(1, 0, 3), (2, 0, 1)]
    inline([])
