import hashlib
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from grndist.data import build
from grndist.data import store as module
from grndist.data.build import write_store
from grndist.data.store import Store, StoreError, open_store
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


# --- faults ---


def damaged(store_path: Path) -> Path:
    return store_path / "X" / "data" / "c" / "0"


def test_a_missing_shard_is_named(store_path: Path):
    damaged(store_path).unlink()
    with pytest.raises(StoreError, match="X/data/c/0 is missing"):
        open_store(store_path)


def test_a_truncated_shard_is_named(store_path: Path):
    file = damaged(store_path)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(StoreError, match=r"X/data/c/0 has .* bytes where"):
        open_store(store_path)


@pytest.mark.parametrize("place", [10, 0.3, 0.6, -5])
def test_a_flipped_bit_is_never_read_as_data(store_path: Path, place: float):
    file = damaged(store_path)
    content = bytearray(file.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 4
    file.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="X/data/c/0 is damaged"):
        open_store(store_path).read_rows(0, 300)


def test_an_unknown_format_version_is_refused(store_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    with pytest.raises(StoreError, match="store format version 1, but this grndist reads version 2"):
        open_store(store_path)


def test_what_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="no such store; make one with"):
        open_store(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="is not a grndist store"):
        open_store(tmp_path)


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
