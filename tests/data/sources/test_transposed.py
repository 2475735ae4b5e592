import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from grndist.data.sources import SourceError, SourceOptions, open_source
from grndist.data.sources.transposed import BucketRows, Buckets, Entries, in_buckets, per_bucket
from grndist.files import WriteError
from tests.data.sources.files import CELLS_IN_ROWS, EXPECTED, VALUES, assert_expected, folder_10x, h5ad, text

FLOAT = np.dtype(np.float64)


def entries(matrix: sparse.coo_matrix, size: int = 7) -> list[Entries]:
    starts = range(0, matrix.nnz, size)
    return [Entries(matrix.row[a : a + size], matrix.col[a : a + size], matrix.data[a : a + size], a) for a in starts]


def converted(source: Path, work: Path, parts: list[Entries], cells: int = 3) -> Buckets:
    return in_buckets(source, "X", cells, FLOAT, 1, lambda: iter(parts), work)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 50),
    held=st.integers(1, 400),
    size=st.integers(1, 30),
)
def test_entries_in_any_order_and_twice(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], seed: int, cells: int, held: int, size: int
):
    rng, work = np.random.default_rng(seed), tmp_path_factory.mktemp("work")
    n = rng.integers(0, 3 * shape[0])
    places = rng.integers(0, shape[0], n), rng.integers(0, shape[1], n)
    matrix = sparse.coo_matrix((rng.integers(1, 9, n).astype(float), places), shape=shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grndist.data.sources.transposed.HELD", held)
        rows = BucketRows(converted(work, work, entries(matrix, size), cells), shape)
        start, stop = sorted(rng.integers(0, shape[0] + 1, 2).tolist())
        assert np.array_equal(rows.read(start, stop).toarray(), matrix.toarray()[start:stop])
    assert rows.n_stored == n


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return text(tmp_path, "x")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


PARTS = entries(sparse.coo_matrix(np.arange(40.0).reshape(10, 4)))


def never() -> Iterator[Entries]:
    raise AssertionError("the entries are streamed again")


def test_a_finished_conversion_is_used_again(source: Path, work: Path):
    first = converted(source, work, PARTS)
    assert in_buckets(source, "X", 3, FLOAT, 1, never, work) == first


def test_an_unfinished_conversion_is_done_again(source: Path, work: Path):
    def killed() -> Iterator[Entries]:
        yield from PARTS[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_buckets(source, "X", 3, FLOAT, 1, killed, work)
    rows = BucketRows(converted(source, work, PARTS), (10, 4))
    assert np.array_equal(rows.read(0, 10).toarray(), np.arange(40.0).reshape(10, 4))


@pytest.mark.parametrize("change", ["source", "name", "cells", "type", "cut", "missing", "record"])
def test_a_conversion_of_something_else_or_damaged_is_done_again(source: Path, work: Path, change: str):
    converted(source, work, PARTS)
    name, cells, dtype = "X", 3, FLOAT
    if change == "source":
        source.write_text("other")
    elif change == "cut":
        (work / "entries" / "1").write_bytes((work / "entries" / "1").read_bytes()[:-1])
    elif change == "missing":
        (work / "entries" / "2").unlink()
    elif change == "record":
        (work / "entries.json").write_text('{"source"')
    name, cells = ("raw/X" if change == "name" else name), (4 if change == "cells" else cells)
    dtype = np.dtype(np.float32) if change == "type" else dtype
    buckets = in_buckets(source, name, cells, dtype, 1, lambda: iter(PARTS), work)
    assert np.array_equal(BucketRows(buckets, (10, 4)).read(0, 10).toarray(), np.arange(40.0).reshape(10, 4))


def test_a_bucket_that_is_damaged_while_in_use_is_named(source: Path, work: Path):
    rows = BucketRows(converted(source, work, PARTS), (10, 4))
    (work / "entries" / "1").write_bytes(b"short")
    assert rows.read(0, 3).nnz
    with pytest.raises(SourceError, match="entries/1 was changed or cut short"):
        rows.read(2, 4)
    (work / "entries" / "1").unlink()
    with pytest.raises(SourceError, match="entries/1 is missing"):
        rows.read(0, 10)


def test_a_full_disk(source: Path, work: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(WriteError, match=r"entries/0: could not be written .* free some space"):
            converted(source, work, PARTS, cells=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (work / "entries.json").exists()


def test_a_bucket_has_about_the_bytes_wanted(monkeypatch: pytest.MonkeyPatch):
    assert per_bucket(1500.0, np.dtype(np.float32)) * 1500 * 10 == pytest.approx(2**24, rel=0.01)
    assert per_bucket(0.0, FLOAT) == 2**16
    assert per_bucket(1e9, FLOAT) == 1


@pytest.mark.parametrize("kind", ["csc", "csv", "10x"])
def test_an_opening_again_does_not_read_the_matrix_again(tmp_path: Path, work: Path, kind: str):
    options = SourceOptions()
    if kind == "csc":
        path = h5ad(tmp_path, VALUES, sparse.csc_matrix)
    elif kind == "10x":
        path = folder_10x(tmp_path)
    else:
        path, options = text(tmp_path, EXPECTED.to_csv()), CELLS_IN_ROWS
    open_source(path, options, work)
    buckets = sorted((work / "entries").iterdir())
    before = [file.stat().st_mtime_ns for file in buckets]
    assert_expected(open_source(path, options, work))
    assert [file.stat().st_mtime_ns for file in buckets] == before


@pytest.mark.parametrize(
    ("array", "place", "value", "words"),
    [
        ("indices", 0, 99, "X/indices is damaged: it names cell number 99 of 4"),
        ("indices", 1, -1, "X/indices is damaged: it names cell number -1 of 4"),
        ("indptr", 1, 6, "X/indptr is damaged: it does not ascend from 0 to 6"),
        ("indptr", 3, 5, "its pointers end at 5, but it has 6 values"),
    ],
)
def test_a_damaged_csc(tmp_path: Path, work: Path, array: str, place: int, value: int, words: str):
    path = h5ad(tmp_path, VALUES, sparse.csc_matrix)
    with h5py.File(path, "a") as file:
        file[f"X/{array}"][place] = value
    with pytest.raises(SourceError, match=words):
        open_source(path, SourceOptions(), work)


def peak_of_conversion(folder: Path, n_genes: int) -> int:
    """Most bytes held while a CSC of 2,000 cells with 1,000 entries a gene is converted and read in four parts."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    matrix = sparse.random(2000, n_genes, 0.5, format="csc", rng=rng, dtype=np.float32)
    path = h5ad(folder, matrix, sparse.csc_matrix)
    del matrix
    tracemalloc.start()
    rows = open_source(path, SourceOptions(), folder).rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.n_stored == 1000 * n_genes
    assert sum(rows.read(start, start + 500).nnz for start in range(0, 2000, 500)) == rows.n_stored
    return peak


def test_memory_of_a_conversion_does_not_grow_with_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grndist.data.sources.transposed.HELD", 2**16)
    monkeypatch.setattr("grndist.data.sources.transposed.BUCKET", 2**17)
    monkeypatch.setattr("grndist.data.sources.matrices.ENTRIES", 2**12)
    peak_of_conversion(tmp_path / "first", 2)  # what is imported and cached on the way
    small, large = peak_of_conversion(tmp_path / "small", 50), peak_of_conversion(tmp_path / "large", 400)
    assert large < small + 200_000
    assert large < 8 * 400_000 / 2  # half of the matrix
