import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from grndist.data.ingest import build
from grndist.data.ingest.build import write_store
from grndist.data.store import Store, StoreError, digest_of, open_store
from grndist.data.store import manifest as module
from grndist.data.store.inspect import head, info, verify
from grndist.genes import CONTROL, UNMAPPED
from tests.conftest import genes, small_counts


def test_every_cell_comes_back_in_the_shuffled_order(store: Store):
    counts, obs = small_counts()
    order = store.obs["source_row"].to_numpy()
    assert np.array_equal(np.sort(order), np.arange(300))
    assert not np.array_equal(order, np.arange(300))
    assert (store.read_rows(0, 300) != counts[order]).nnz == 0
    assert store.obs["perturbation"].astype(str).tolist() == obs["perturbation"].iloc[order].tolist()
    assert store.obs.index.tolist() == obs.index[order].tolist()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted))
def test_any_range_of_rows_can_be_read(store: Store, bounds: list[int]):
    start, stop = bounds
    counts, _ = small_counts()
    wanted = counts[store.obs["source_row"].to_numpy()[start:stop]]
    assert (store.read_rows(start, stop) != wanted).nnz == 0


def test_totals_and_moments_are_those_of_the_data(store: Store):
    counts, _ = small_counts()
    dense = counts.toarray()[store.obs["source_row"]]
    assert np.array_equal(store.totals, dense.sum(1))
    assert np.allclose(store.var["mean"], dense.mean(0), rtol=1e-12)
    assert np.allclose(store.var["variance"], dense.var(0), rtol=1e-10)
    assert np.array_equal(store.var["nnz"], (dense > 0).sum(0))
    logged = np.log1p(dense / dense.sum(1, keepdims=True) * np.median(dense.sum(1)))
    assert np.allclose(store.var["log1p_mean"], logged.mean(0), rtol=1e-10)
    assert np.allclose(store.var["log1p_variance"], logged.var(0), rtol=1e-8)


def test_perturbed_columns_tell_controls_from_unmapped_labels(store: Store):
    labels = store.obs["perturbation"].astype(str)
    for label, column in {"non-targeting": CONTROL, "g1": 1, "g3": 3, "g1+g3": UNMAPPED, "elsewhere": UNMAPPED}.items():
        assert (store.perturbed[(labels == label).to_numpy()] == column).all()
    assert np.array_equal(store.obs["is_control"], labels == "non-targeting")


def test_it_is_an_anndata_on_which_scanpy_works(store_path: Path):
    data = anndata.read_zarr(store_path)
    assert data.shape == (300, 12)
    assert data.X.dtype == np.uint16
    data.X = data.X.astype(np.float32)
    sc.pp.normalize_total(data)
    sc.pp.log1p(data)
    assert np.isfinite(data.X.toarray()).all()


def test_large_counts_take_32_bits_and_floats_stay_floats(tmp_path: Path):
    counts = sparse.csr_matrix(np.array([[70_000, 0], [3, 1]]))
    obs = pd.DataFrame({"perturbation": ["non-targeting"] * 2}, index=["a", "b"])
    write_store(tmp_path / "a.zarr", counts, obs, genes(2), "counts", {})
    assert open_store(tmp_path / "a.zarr").read_rows(0, 2).dtype == np.uint32
    write_store(tmp_path / "b.zarr", counts * 0.5, obs, genes(2), "continuous", {})
    assert open_store(tmp_path / "b.zarr").read_rows(0, 2).dtype == np.float32
    with pytest.raises(StoreError, match="does not fit 32 bits"):
        write_store(tmp_path / "c.zarr", counts.astype(np.int64) * 2**32, obs, genes(2), "counts", {})


def test_many_shards_are_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "CHUNK", 64)
    monkeypatch.setattr(build, "SHARD", 512)
    counts, obs = small_counts()
    write_store(tmp_path / "s.zarr", counts, obs, genes(12), "counts", {})
    assert len(list((tmp_path / "s.zarr" / "X" / "data" / "c").iterdir())) == -(-counts.nnz // 512)
    store = open_store(tmp_path / "s.zarr")
    assert (store.read_rows(100, 290) != counts[store.obs["source_row"].to_numpy()[100:290]]).nnz == 0


def test_the_manifest_lists_every_file_with_its_checksum(store_path: Path):
    manifest = anndata.read_zarr(store_path).uns["grndist"]["manifest"]
    files = {file.relative_to(store_path).as_posix() for file in store_path.rglob("*") if file.is_file()}
    assert {key for key in files if not key.startswith("uns")} == set(manifest["key"])
    for key, size, sha in zip(manifest["key"], manifest["bytes"], manifest["sha256"], strict=True):
        content = (store_path / key).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha)


def test_the_digest_follows_the_data_and_nothing_else(tmp_path: Path):
    counts, obs = small_counts()
    for name, matrix, seed in (("a", counts, 0), ("b", counts, 0), ("c", counts * 2, 0), ("d", counts, 1)):
        write_store(tmp_path / name, matrix, obs, genes(12), "counts", {}, shuffle_seed=seed)
    digest = {name: open_store(tmp_path / name).digest for name in "abcd"}
    assert digest["a"] == digest["b"]
    assert len(set(digest.values())) == 3


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a store of each profile once it was needed."""
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(params=["train", "archive"])
def sharded(request: pytest.FixtureRequest, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of many small shards, of either profile."""
    monkeypatch.setattr(build, "CHUNK", 64)
    monkeypatch.setattr(build, "SHARD", 512)
    monkeypatch.setattr(build, "ROWS_PER_CHUNK", 8)
    monkeypatch.setattr(build, "DENSE_SHARD", 1024)
    if not (pristine / request.param).exists():
        counts, obs = small_counts()
        write_store(pristine / request.param, counts, obs, genes(12), "counts", {}, profile=request.param)
    return Path(shutil.copytree(pristine / request.param, tmp_path / "s.zarr"))


def test_any_cells_of_either_profile_can_be_read(sharded: Path):
    store = open_store(sharded)
    counts, _ = small_counts()
    wanted = counts[store.obs["source_row"].to_numpy()]
    rng = np.random.default_rng(0)
    for share in (0, 0.02, 0.5, 1):
        rows = np.flatnonzero(rng.random(300) < share)
        found = store.read_cells(rows)
        assert (found != wanted[rows]).nnz == 0
        assert found.has_sorted_indices
    assert store.density == counts.nnz / counts.shape[0] / counts.shape[1]
    assert anndata.read_zarr(sharded).shape == (300, 12)


# --- faults ---


def shards_of(path: Path) -> list[Path]:
    files = sorted(file for file in (path / "X").rglob("c/*") if file.is_file()) or sorted(
        (path / "X" / "c").rglob("0")
    )
    return [file for file in files if file.is_file() and "indptr" not in file.parts]


def read_everything(store: Store) -> sparse.csr_matrix:
    return replace(store).read_rows(0, store.n_cells)  # a fresh one remembers nothing


def test_every_flipped_bit_is_an_error_that_names_the_shard(sharded: Path):
    """100 random ones of each profile."""
    store, shards, rng = open_store(sharded), shards_of(sharded), np.random.default_rng(1)
    assert len(shards) > 3
    for _ in range(100):
        file = shards[rng.integers(len(shards))]
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bad)
        with pytest.raises(StoreError, match=f"{file.relative_to(sharded)} is damaged"):
            read_everything(store)
        file.write_bytes(good)
    read_everything(store)


def test_every_truncation_and_removal_names_the_shard(sharded: Path):
    """20 of each, found when the store is opened, and again when it happens later."""
    store, shards, rng = open_store(sharded), shards_of(sharded), np.random.default_rng(2)
    for _ in range(20):
        file = shards[rng.integers(len(shards))]
        good = file.read_bytes()
        file.write_bytes(good[: rng.integers(len(good))])
        for act, words in (
            (lambda: open_store(sharded), "bytes where"),
            (lambda: read_everything(store), "is damaged"),
        ):
            with pytest.raises(StoreError, match=f"{file.relative_to(sharded)}.*{words}"):
                act()
        file.unlink()
        for act, words in ((lambda: open_store(sharded), "is missing"), (lambda: read_everything(store), "is missing")):
            with pytest.raises(StoreError, match=f"{file.relative_to(sharded)}.*{words}"):
                act()
        file.write_bytes(good)


def contents(path: Path) -> tuple:
    """Everything a reader of a store can ask for."""
    store = open_store(path)
    about = {name: value for name, value in store.description.items() if name != "source"}
    return store.obs.to_csv(), store.var.to_csv(), store.indptr.tolist(), str(about), store.panel.names


@pytest.mark.parametrize("most", [60, pytest.param(None, marks=pytest.mark.slow)])
def test_no_flipped_bit_elsewhere_is_ever_read_as_data(sharded: Path, most: int | None):
    """One in each of so many files, or in every one: an error, or what was written."""
    good, rng, noticed = contents(sharded), np.random.default_rng(3), 0
    shards = set(shards_of(sharded))
    others = sorted(file for file in sharded.rglob("*") if file.is_file() and file not in shards)
    others = [others[number] for number in rng.permutation(len(others))[:most]]
    for file in others:
        content = file.read_bytes()
        bad = bytearray(content)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bad)
        try:
            found = contents(sharded)
        except StoreError:
            noticed += 1
        else:
            assert found == good, file
        file.write_bytes(content)
    assert noticed > len(others) / 2


def test_a_shard_of_another_store_is_noticed(sharded: Path, tmp_path: Path):
    counts, obs = small_counts()
    profile = open_store(sharded).profile
    write_store(tmp_path / "o.zarr", counts, obs, genes(12), "counts", {}, shuffle_seed=1, profile=profile)
    file = shards_of(sharded)[0]
    other = (tmp_path / "o.zarr" / file.relative_to(sharded)).read_bytes()
    store, size = open_store(sharded), file.stat().st_size
    file.write_bytes(other)
    with pytest.raises(StoreError, match=f"{file.relative_to(sharded)}.*(damaged|bytes where)"):
        read_everything(store) if len(other) == size else open_store(sharded)


def test_a_changed_gene_list_is_noticed(sharded: Path, tmp_path: Path):
    counts, obs = small_counts()
    renamed = genes(12).rename(index={"g3": "g9999"})
    write_store(tmp_path / "o.zarr", counts, obs, renamed, "counts", {}, profile=open_store(sharded).profile)
    shutil.rmtree(sharded / "var")
    shutil.copytree(tmp_path / "o.zarr" / "var", sharded / "var")
    with pytest.raises(StoreError, match=r"var/.*(damaged|bytes where)"):
        open_store(sharded)


# --- looking at a store ---


def test_verify_finds_every_damaged_file(sharded: Path):
    n_files, damage = verify(sharded)
    assert damage == []
    assert n_files == len(open_store(sharded).manifest)
    files = [shards_of(sharded)[0], shards_of(sharded)[-1], *(sharded / "obs" / "_index").rglob("0")]
    content = bytearray(files[0].read_bytes())
    content[5] ^= 1
    files[0].write_bytes(content)
    files[1].unlink()
    files[2].write_bytes(b"short")
    found = {one.key: one.problem for one in verify(sharded)[1]}
    assert set(found) == {file.relative_to(sharded).as_posix() for file in files}
    for file, words in zip(files, ("is not what was written", "is missing", "has 5 bytes where"), strict=True):
        assert words in found[file.relative_to(sharded).as_posix()]


def test_info_says_what_there_is(sharded: Path):
    store = open_store(sharded)
    said = dict(info(store))
    assert said["shape"] == "300 cells x 12 genes"
    assert said["digest"] == store.digest
    assert said["layout"].startswith(f"profile {store.profile}, format version 1, types uint16")
    assert f"{store.obs['is_control'].sum():,} control" in said["cells"]
    assert said["perturbed genes"] == "2: 'g1', 'g3'"
    assert (
        f"{sum(file.stat().st_size for file in sharded.rglob('*') if file.is_file()) / 2**20:.1f}"[:1] in said["size"]
    )


def test_info_names_what_is_worth_a_second_look(tmp_path: Path):
    counts, obs = small_counts()
    counts = counts.toarray()
    counts[:, [2, 7]] = 0
    obs.iloc[17, 0] = "g5"
    write_store(tmp_path / "s.zarr", sparse.csr_matrix(counts), obs, genes(12), "counts", {})
    said = dict(info(open_store(tmp_path / "s.zarr")))
    assert said["constant genes"] == "2: 'g2', 'g7'"
    assert said["labels of one cell"] == "1: 'g5'"


def test_head_is_the_first_cells(sharded: Path):
    store = open_store(sharded)
    table = head(store, 4, 3)
    assert list(table.index) == list(store.obs.index[:4])
    assert list(table.columns[:3]) == ["perturbation", "total_counts", "n_genes"]
    values = pd.DataFrame(store.read_rows(0, 4).toarray(), store.obs.index[:4], store.panel.names)
    pd.testing.assert_frame_equal(table.iloc[:, 3:], values[list(table.columns[3:])])
    assert values.sum().nlargest(3).tolist() == table.iloc[:, 3:].sum().tolist()
    assert (head(store, 1, 3).iloc[0, 3:] > 0).all()
    assert len(head(store, 10_000, 3)) == 300


# --- what it refuses ---


def test_an_unknown_format_version_is_refused(store_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    with pytest.raises(StoreError, match="store format version 1, but this grndist reads version 2"):
        open_store(store_path)


def test_what_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="no such store; make one with"):
        open_store(tmp_path / "none.zarr")
    (tmp_path / "notes.txt").write_text("no store")
    with pytest.raises(StoreError, match="is not a grndist store"):
        open_store(tmp_path)


def test_the_digest_covers_the_whole_manifest(store: Store):
    for column, value in (("key", "elsewhere"), ("bytes", 1), ("sha256", "0" * 64), ("index", "00000000")):
        changed = store.manifest.copy()
        changed[column] = changed[column].astype(object)
        changed.loc[3, column] = value
        assert digest_of(changed) != store.digest
    assert digest_of(store.manifest.sample(frac=1, random_state=0)) == store.digest


def test_an_empty_folder_where_one_stands_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="no such store"):
        open_store(".")


def test_bytes_per_cell_are_those_of_a_window(sharded: Path):
    store = open_store(sharded)
    values = store.read_rows(0, 300)
    sizes = [np.empty(len(values.data), dtype=dtype).nbytes for dtype in store.dtypes]
    assert store.bytes_per_cell == pytest.approx(sum(sizes) / 300)


def test_a_store_whose_ingest_is_not_finished_says_so(tmp_path: Path):
    (tmp_path / ".s.zarr.ingest").mkdir()
    with pytest.raises(StoreError, match="begun and not finished; run the same `grndist ingest` again"):
        open_store(tmp_path / "s.zarr")


def test_an_anndata_and_an_unfinished_store_are_refused(store_path: Path):
    shutil.rmtree(store_path / "uns")
    with pytest.raises(StoreError, match=r"has no uns/grndist/zarr\.json: an AnnData, or an unfinished ingest"):
        open_store(store_path)


def test_an_exchanged_manifest_is_noticed(store_path: Path, tmp_path: Path):
    counts, obs = small_counts(seed=1)
    write_store(tmp_path / "other.zarr", counts, obs, genes(12), "counts", {})
    digest = store_path / "uns" / "grndist" / "digest"
    other = tmp_path / "other.zarr" / "uns" / "grndist" / "digest"
    for file in digest.rglob("*"):
        if file.is_file():
            file.write_bytes((other / file.relative_to(digest)).read_bytes())
    with pytest.raises(StoreError, match="manifest does not match its own digest"):
        open_store(store_path)


def test_the_source_is_recorded(store: Store):
    assert json.loads(store.description["source"]) == {"name": "made here"}
