from collections.abc import Callable
from pathlib import Path
from warnings import catch_warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.sources import SourceError, SourceOptions, source_digest
from tests.data.sources.files import (
    CELLS_IN_ROWS,
    EXPECTED,
    VALUES,
    annotated,
    assert_expected,
    opened,
    refused,
    table,
    whole,
    zarr_folder,
)


def written(path: Path, data: anndata.AnnData, version: int = 3) -> None:
    """By AnnData itself, which warns of formats to come."""
    with catch_warnings(action="ignore"), anndata.settings.override(zarr_write_format=version):
        data.write_zarr(path)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("version", [2, 3])
def test_an_anndata_in_zarr(tmp_path: Path, kind: Callable, version: int):
    written(tmp_path / "data.zarr", annotated(VALUES, kind), version)
    source = opened(tmp_path / "data.zarr")
    assert_expected(source)
    assert list(source.obs["batch"]) == ["a", "a", "b", "b"]
    assert source.description == "Zarr, X"
    assert not source.logged
    refused(tmp_path / "data.zarr", SourceOptions(raw=True), "no .raw")


def test_layer_and_raw_of_zarr(tmp_path: Path):
    data = annotated()
    data.raw = data
    data.layers["double"] = VALUES * 2
    data.X = None
    data.uns["log1p"] = {"base": None}
    written(tmp_path / "data.zarr", data)
    refused(tmp_path / "data.zarr", SourceOptions(), "X is empty", "'double'")
    layer = opened(tmp_path / "data.zarr", SourceOptions(layer="double"))
    pd.testing.assert_frame_equal(table(layer), EXPECTED * 2)
    assert layer.logged
    assert_expected(opened(tmp_path / "data.zarr", SourceOptions(raw=True)))


def test_a_folder_is_recognised_without_the_ending(tmp_path: Path):
    assert_expected(opened(zarr_folder(tmp_path).rename(tmp_path / "data")))


@pytest.mark.parametrize("profile", ["train", "archive"])
@pytest.mark.parametrize(("state", "logged"), [("counts", False), ("log1p", True)])
def test_a_store_of_ours(tmp_path: Path, profile: str, state: str, logged: bool):
    data = annotated()
    obs = data.obs.assign(perturbation="non-targeting")
    values = data.X if state == "counts" else data.X / 10_000
    write_store(tmp_path / "s.zarr", values, obs, data.var, state, {}, shuffle_seed=3, profile=profile)
    source = opened(tmp_path / "s.zarr")
    expected = EXPECTED if state == "counts" else EXPECTED / np.float32(10_000)
    pd.testing.assert_frame_equal(table(source).loc[EXPECTED.index], expected, check_dtype=False)
    assert source.logged == logged


CASES = [
    ("CSR", sparse.csr_matrix, 3, {"chunks": (2,), "shards": (4,)}, "X/data/c/1"),
    ("CSR", sparse.csr_matrix, 3, {"chunks": (2,), "shards": (4,)}, "X/indices/c/0"),
    ("CSR", sparse.csr_matrix, 3, {"chunks": (2,)}, "X/indptr/c/0"),
    ("CSC", sparse.csc_matrix, 3, {"chunks": (2,)}, "X/data/c/2"),
    ("CSR", sparse.csr_matrix, 2, {"chunks": (2,)}, "X/data/1"),
    ("dense", np.asarray, 3, {"chunks": (2, 2)}, "X/c/1/0"),
    ("dense", np.asarray, 2, {"chunks": (2, 2)}, "X/0.1"),
]
IDS = [f"{kind}, version {version}, {key}" for kind, _, version, _, key in CASES]


@pytest.mark.parametrize(("name", "kind", "version", "arrays", "key"), CASES, ids=IDS)
def test_a_missing_chunk_is_named(tmp_path: Path, name: str, kind: Callable, version: int, arrays: dict, key: str):
    path = zarr_folder(tmp_path, kind=kind, version=version, **arrays)
    (path / key).unlink()
    refused(path, SourceOptions(), "1 files of X", f"the first is {key}; Zarr would read zeros there", "copy")


@pytest.mark.parametrize("key", ["X/data/c/0", "X/indices/c/0"])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_chunk(tmp_path: Path, key: str, how: str):
    path = zarr_folder(tmp_path, chunks=(2,), shards=(4,))
    content = bytearray((path / key).read_bytes())
    if how == "cut":
        content = content[:-7]
    else:
        content[-9] ^= 4  # in the shard's index, which has a checksum
    (path / key).write_bytes(content)
    refused(path, SourceOptions(), "not readable as AnnData Zarr, X, cells 0 to 3", "complete")


def test_a_matrix_of_zeros_only_has_no_chunks(tmp_path: Path):
    written(tmp_path / "data.zarr", annotated(VALUES * 0))
    assert whole(opened(tmp_path / "data.zarr")).nnz == 0


def test_folders_that_are_no_anndata(tmp_path: Path):
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", SourceOptions(), "no Zarr folder", "zarr.json")
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_group("weights")
    refused(tmp_path / "other.zarr", SourceOptions(), "holds no AnnData", "'weights'")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    refused(tmp_path / "broken.zarr", SourceOptions(), "not readable as AnnData Zarr")


def test_a_matrix_of_an_unknown_kind(tmp_path: Path):
    path = zarr_folder(tmp_path)
    zarr.open_group(path, mode="a")["X"].attrs["encoding-type"] = "coo_matrix"
    refused(path, SourceOptions(), "X is stored as 'coo_matrix'", "CSR, CSC or dense")


def test_options_of_text_do_not_apply(tmp_path: Path):
    refused(zarr_folder(tmp_path), CELLS_IN_ROWS, "are for CSV and TSV")


def test_the_digest_is_of_all_files(tmp_path: Path):
    path = zarr_folder(tmp_path)
    before = source_digest(path)
    copy = zarr_folder(tmp_path / "x")
    assert source_digest(copy) == before
    (path / "X" / "data" / "c" / "0").write_bytes(b"other")
    assert source_digest(path) != before


def test_a_chunk_that_goes_while_it_is_in_use(tmp_path: Path):
    source = opened(zarr_folder(tmp_path))
    (tmp_path / "data.zarr" / "X" / "indices" / "zarr.json").unlink()
    with pytest.raises(SourceError, match="X, cells 1 to 2"):
        source.rows.read(1, 3)
