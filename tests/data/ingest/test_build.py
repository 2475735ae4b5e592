from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from grndist.data.ingest import build as module
from grndist.data.ingest.build import build, write_store
from grndist.data.ingest.finish import Built, Contents
from grndist.data.ingest.parts import Columns, MatrixRows, Part
from grndist.data.ingest.schedule import Run, Task, delayed, inline, threads
from grndist.data.store import Store, StoreError, open_store
from grndist.errors import UserError
from grndist.files import WriteError
from tests.conftest import genes, small_counts
from tests.data.ingest.building import small_pieces

__all__ = ["small_pieces"]


def parts_of(matrix: sparse.csr_matrix, bounds: Sequence[int]) -> list[Part]:
    rows = MatrixRows(matrix)
    return [Part(number, 0, rows, a, b, a, None, only_counts=False) for number, (a, b) in enumerate(pairwise(bounds))]


def built(
    folder: Path,
    matrix: sparse.csr_matrix,
    obs: pd.DataFrame,
    bounds: Sequence[int],
    run: Run = inline,
    kept: np.ndarray | None = None,
    **contents,
) -> Built:
    folder.mkdir(exist_ok=True)
    kept = np.ones(matrix.shape[0], dtype=bool) if kept is None else kept
    every = Contents(obs[kept], genes(matrix.shape[1]), {}, **contents)
    return build(folder, folder / "store", parts_of(matrix, bounds), kept, every, lambda found: "counts", run)


def values_of(store: Store) -> np.ndarray:
    return store.read_rows(0, store.n_cells).toarray()


def reverse(tasks: Sequence[Task]) -> None:
    inline(tasks[::-1])


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.sets(st.integers(1, 119), max_size=6), dropped=st.sets(st.integers(0, 119), max_size=110))
def test_a_store_does_not_depend_on_how_its_source_is_cut(
    tmp_path_factory: pytest.TempPathFactory, small_pieces: None, cuts: set[int], dropped: set[int]
):
    counts, obs = small_counts(120)
    kept = ~np.isin(np.arange(120), list(dropped))
    folder = tmp_path_factory.mktemp("b")
    whole = built(folder / "a", counts, obs, [0, 120], kept=kept)
    parts = built(folder / "b", counts, obs, [0, *sorted(cuts), 120], kept=kept)
    assert whole.digest == parts.digest
    store = open_store(folder / "b" / "store")
    assert np.array_equal(values_of(store), counts[kept].toarray()[store.obs["source_row"]])


@pytest.mark.parametrize("run", [threads(1), threads(4), reverse])
@pytest.mark.parametrize("profile", ["train", "archive"])
def test_it_does_not_depend_on_who_does_what_and_when(tmp_path: Path, small_pieces: None, run: Run, profile: str):
    counts, obs = small_counts()
    expected = built(tmp_path / "a", counts, obs, [0, 300], profile=profile)
    found = built(tmp_path / "b", counts, obs, [0, 50, 51, 200, 300], run, profile=profile)
    assert found.digest == expected.digest
    assert len(expected.manifest) > 20


@pytest.mark.parametrize("scale", [1, 70_000, 0.5])
def test_both_profiles_hold_the_same_and_anndata_and_zarr_read_it(tmp_path: Path, small_pieces: None, scale: float):
    counts, obs = small_counts()
    state = "continuous" if scale == 0.5 else "counts"
    matrix = sparse.csr_matrix(counts * scale)
    for profile in ("train", "archive"):
        write_store(tmp_path / profile, matrix, obs, genes(12), state, {}, profile=profile)
    train, archive = (open_store(tmp_path / profile) for profile in ("train", "archive"))
    expected = matrix.toarray()[train.obs["source_row"]]
    dtype = {1: np.uint16, 70_000: np.uint32, 0.5: np.float32}[scale]
    for store in (train, archive):
        assert np.array_equal(values_of(store), expected)
        data = anndata.read_zarr(store.url)
        assert np.array_equal(data.X if store is archive else data.X.toarray(), expected)
        assert data.X.dtype == dtype
    pd.testing.assert_frame_equal(train.obs, archive.obs)
    pd.testing.assert_frame_equal(train.var, archive.var, check_exact=False, rtol=1e-12)
    assert not (tmp_path / "archive" / "X" / "indptr").exists()


def test_scanpy_works_on_an_archive(tmp_path: Path):
    counts, obs = small_counts()
    write_store(tmp_path / "s", counts, obs, genes(12), "counts", {}, profile="archive")
    data = anndata.read_zarr(tmp_path / "s")
    data.X = data.X.astype(np.float32)
    sc.pp.normalize_total(data)
    sc.pp.log1p(data)
    assert np.isfinite(data.X).all()


@pytest.mark.parametrize("profile", ["train", "archive"])
def test_moments_are_those_of_the_data(tmp_path: Path, small_pieces: None, profile: str):
    counts, obs = small_counts()
    counts = counts.tolil()
    counts[:, 2], counts[:, 3] = 0, 7
    counts[5] = 0
    counts[5, 3] = 7
    counts = sparse.csr_matrix(counts * 5)  # beyond the table of logarithms
    built(tmp_path / "b", counts, obs, [0, 100, 300], profile=profile)
    store = open_store(tmp_path / "b" / "store")
    dense = counts.toarray()[store.obs["source_row"]].astype(float)
    logged = np.log1p(dense / dense.sum(1, keepdims=True) * np.median(dense.sum(1)))
    for name, expected in {
        "mean": dense.mean(0),
        "variance": dense.var(0),
        "nnz": (dense > 0).sum(0),
        "log1p_mean": logged.mean(0),
        "log1p_variance": logged.var(0),
    }.items():
        assert np.allclose(store.var[name], expected, rtol=1e-9, atol=1e-12), name
    assert np.array_equal(store.obs["total_counts"], dense.sum(1))
    assert np.array_equal(store.obs["n_genes"], (dense > 0).sum(1))


def test_zero_variance_is_told_exactly(tmp_path: Path):
    values = np.full((300, 3), 0.1, dtype=np.float32)  # a difference of sums would leave some 1e-18
    values[:, 1] = 0
    values[7, 2] = 0.2
    _, obs = small_counts()
    rows, kept = MatrixRows(sparse.csr_matrix(values)), np.ones(300, dtype=bool)
    part = Part(0, 0, rows, 0, 300, 0, None, only_counts=False)
    every = Contents(obs, genes(3), {})
    found = build(tmp_path, tmp_path / "store", [part], kept, every, lambda found: "continuous")
    assert found.constant.tolist() == [True, False, False]
    assert found.seen.tolist() == [True, False, True]
    assert open_store(tmp_path / "store").var["variance"].gt(0).tolist() == [False, False, True]


def test_genes_are_put_where_the_panel_has_them():
    matrix = sparse.csr_matrix(np.arange(12).reshape(3, 4))
    moved = Columns(np.array([3, 0]), np.array([1, 4]), n_genes=5).of(matrix)
    expected = np.zeros((3, 5))
    expected[:, [1, 4]] = matrix.toarray()[:, [3, 0]]
    assert np.array_equal(moved.toarray(), expected)
    assert moved.has_sorted_indices


def test_cells_are_split_by_label_and_the_split_is_that_of_the_names(tmp_path: Path):
    counts, obs = small_counts()
    for seed in (0, 1):
        write_store(tmp_path / str(seed), counts, obs, genes(12), "counts", {}, shuffle_seed=seed)
    one, other = (open_store(tmp_path / name).obs["split"].astype(str) for name in "01")
    assert one.loc[obs.index].tolist() == other.loc[obs.index].tolist()
    assert one.value_counts().to_dict() == {"train": 240, "validation": 30, "test": 30}


def test_what_is_finished_is_not_done_again(tmp_path: Path, small_pieces: None):
    counts, obs = small_counts()
    expected = built(tmp_path / "a", counts, obs, [0, 300])
    done: list[Task] = []

    def stop_after(number: int) -> Run:
        def run(tasks: Sequence[Task]) -> None:
            for task in tasks:
                if len(done) == number:
                    raise KeyboardInterrupt
                task()
                done.append(task)

        return run

    bounds = [0, 60, 120, 180, 240, 300]
    for number in (2, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            built(tmp_path / "b", counts, obs, bounds, stop_after(number))
    found = built(tmp_path / "b", counts, obs, bounds, stop_after(10**6))
    assert found.digest == expected.digest
    n_shards = -(-counts.nnz // 512)
    assert len(done) == 5 + n_shards


@pytest.mark.parametrize("lost", ["parts/000001.spill", "parts/000001.json", "store/X/data/c/1", "shards/000001.npz"])
def test_a_piece_that_got_lost_is_made_again(tmp_path: Path, small_pieces: None, lost: str):
    counts, obs = small_counts()
    expected = built(tmp_path / "b", counts, obs, [0, 100, 200, 300])
    (tmp_path / "b" / lost).unlink()
    (tmp_path / "b" / "store" / "obs" / "half").write_text("a process was killed here")
    (tmp_path / "b" / "store" / "X" / "data" / "c" / ".2.tmp-0").write_text("and here")
    found = built(tmp_path / "b", counts, obs, [0, 100, 200, 300])
    assert found.digest == expected.digest
    assert open_store(tmp_path / "b" / "store").digest == expected.digest


def test_tasks_run_on_a_dask_cluster(tmp_path: Path, small_pieces: None, cluster: Callable[[], Run]):
    counts, obs = small_counts()
    expected = built(tmp_path / "a", counts, obs, [0, 300])
    assert built(tmp_path / "b", counts, obs, [0, 100, 200, 300], cluster()).digest == expected.digest


@pytest.fixture
def cluster() -> Callable[[], Run]:
    """Runs tasks on the workers of a dask.distributed cluster in this process."""
    distributed = pytest.importorskip("distributed")

    def started() -> Run:
        def run(tasks: Sequence[Task]) -> None:
            with (
                distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=None) as nodes,
                distributed.Client(nodes, set_as_default=False) as client,
            ):
                client.gather(client.compute(delayed(tasks)))

        return run

    return started


# --- faults ---


def test_counts_that_are_not_whole_are_refused(tmp_path: Path):
    counts, obs = small_counts()
    with pytest.raises(StoreError, match=r"a count is 1\.5, which is not whole"):
        write_store(tmp_path / "s", counts * 0.5, obs, genes(12), "counts", {})
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counts, obs = small_counts()
    write_store(tmp_path / "s", counts, obs, genes(12), "counts", {})
    digest = open_store(tmp_path / "s").digest

    def full(*_: object) -> None:
        raise WriteError(tmp_path / "s", "No space left on device")

    monkeypatch.setattr(module, "put_in_place", full)
    with pytest.raises(WriteError, match="No space left"):
        write_store(tmp_path / "s", counts * 2, obs, genes(12), "counts", {}, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    assert open_store(tmp_path / "s").digest == digest


def test_a_spill_file_cut_short_is_named(tmp_path: Path, small_pieces: None):
    counts, obs = small_counts()
    built(tmp_path / "b", counts, obs, [0, 100, 300])
    spill = tmp_path / "b" / "parts" / "000001.spill"
    spill.write_bytes(spill.read_bytes()[:-800])
    for shard in (tmp_path / "b" / "shards").iterdir():
        shard.unlink()
    expected = built(tmp_path / "a", counts, obs, [0, 300]).digest
    with pytest.raises(
        UserError, match=r"000001\.spill is shorter than when it was written; run the same command again"
    ):
        built(tmp_path / "b", counts, obs, [0, 100, 300])
    assert built(tmp_path / "b", counts, obs, [0, 100, 300]).digest == expected


def test_a_worker_that_does_not_see_the_files_says_so(tmp_path: Path):
    counts, obs = small_counts()
    folder = tmp_path / "b"

    def without_the_folder(tasks: Sequence[Task]) -> None:
        (folder / "destinations").unlink()
        inline(tasks)

    with pytest.raises(UserError, match="not visible where the task runs"):
        built(folder, counts, obs, [0, 300], without_the_folder)
