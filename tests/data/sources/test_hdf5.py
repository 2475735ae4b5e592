from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from grndist.data.sources import SourceError, SourceOptions
from tests.data.sources.files import (
    EXPECTED,
    GENES,
    VALUES,
    annotated,
    assert_expected,
    h5ad,
    opened,
    refused,
    table,
    text,
    whole,
)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint32])
def test_h5ad(tmp_path: Path, kind: Callable, dtype: type):
    source = opened(h5ad(tmp_path, VALUES.astype(dtype), kind), SourceOptions())
    assert_expected(source)
    assert list(source.obs["batch"]) == ["a", "a", "b", "b"]
    assert source.description == "h5ad, X"
    assert not source.logged


def test_a_dense_h5ad_is_the_same_however_many_rows_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grndist.data.sources.matrices.DENSE_BYTES", 3 * 3 * 4)
    assert_expected(opened(h5ad(tmp_path, kind=np.asarray), SourceOptions()))


def test_half_precision_in_a_dense_h5ad(tmp_path: Path):
    source = opened(h5ad(tmp_path, np.minimum(VALUES, 100).astype(np.float16), np.asarray), SourceOptions())
    assert table(source).loc["AAAG-1", "IRF1"] == 100


def test_layer_and_raw_are_read_instead_of_x(tmp_path: Path):
    whole = annotated()
    data = anndata.AnnData(VALUES[:, :2] / 7, obs=whole.obs, var=whole.var[:2], layers={"counts": VALUES[:, :2] * 2})
    data.raw = whole
    data.uns["log1p"] = {}
    data.write_h5ad(tmp_path / "d.h5ad")
    layer = opened(tmp_path / "d.h5ad", SourceOptions(layer="counts"))
    pd.testing.assert_frame_equal(table(layer), EXPECTED[GENES[:2]] * 2)
    assert layer.logged
    assert layer.description == "h5ad, layers/counts"
    assert_expected(opened(tmp_path / "d.h5ad", SourceOptions(raw=True)))


def test_text_that_ends_in_h5ad(tmp_path: Path):
    refused(text(tmp_path, "cell,A\nc,1\n", "d.h5ad"), SourceOptions(), "not readable as HDF5", "signature not found")


def test_truncated_hdf5(tmp_path: Path):
    path = h5ad(tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    refused(path, SourceOptions(), "not readable as HDF5", "truncated", "complete")


def test_hdf5_that_is_neither_h5ad_nor_10x(tmp_path: Path):
    with h5py.File(tmp_path / "d.h5ad", "w") as file:
        file.create_group("weights")
    refused(tmp_path / "d.h5ad", SourceOptions(), "neither an h5ad", "'weights'")


def test_h5ad_of_an_unknown_encoding(tmp_path: Path):
    path = h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        file["obs/batch"].attrs["encoding-type"] = "of-the-future"
    refused(path, SourceOptions(), "of-the-future")


def test_h5ad_with_columns_out_of_range(tmp_path: Path):
    path = h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        file["X/indices"][0] = 99
    refused(path, SourceOptions(), "X/indices is damaged at cells 0 to 3", "gene number 99 of 3")


def test_h5ad_of_text_or_of_complex_values(tmp_path: Path):
    path = h5ad(tmp_path, kind=np.asarray)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = np.full((4, 3), "a", dtype="S1")
    refused(path, SourceOptions(), "not a matrix of numbers")


def test_absent_layer_names_those_there_are(tmp_path: Path):
    data = annotated()
    data.layers["counts"] = data.X
    data.write_h5ad(tmp_path / "d.h5ad")
    refused(tmp_path / "d.h5ad", SourceOptions(layer="raw"), "no layer 'raw'", "'counts'", "--layer")
    refused(h5ad(tmp_path), SourceOptions(layer="raw"), "it has no layers")


def test_absent_raw_and_absent_x(tmp_path: Path):
    refused(h5ad(tmp_path), SourceOptions(raw=True), "no .raw")
    data = annotated()
    data.layers["counts"], data.X = data.X, None
    data.write_h5ad(tmp_path / "d.h5ad")
    refused(tmp_path / "d.h5ad", SourceOptions(), "X is empty", "'counts'")


def test_an_h5ad_cut_short_anywhere_is_refused_at_once(tmp_path: Path):
    path = h5ad(tmp_path, np.ones((50, 20), dtype=np.float32))
    content = path.read_bytes()
    for size in range(0, len(content), len(content) // 25):
        path.write_bytes(content[:size])
        refused(path, SourceOptions(), "not readable as HDF5", "complete")


def test_an_h5ad_that_lacks_its_end_but_does_not_know_it(tmp_path: Path):
    path = h5ad(tmp_path, np.ones((5000, 20), dtype=np.float32), np.asarray)
    with h5py.File(path) as file:
        begin, size = file["X"].id.get_offset(), file["X"].id.get_storage_size()
    content = bytearray(path.read_bytes())
    end = content.index(len(content).to_bytes(8, "little"), 0, 64)  # in the superblock
    cut = begin + size // 2
    content[end : end + 8] = cut.to_bytes(8, "little")
    path.write_bytes(content[:cut])
    refused(path, SourceOptions(), "not readable as HDF5", "complete")


@pytest.mark.parametrize("kind", [sparse.csr_matrix, np.asarray])
def test_damage_that_shows_only_in_the_middle_of_the_values(tmp_path: Path, kind: Callable):
    values = np.random.default_rng(0).poisson(2, (4000, 20)).astype(np.float32)
    annotated(values, kind).write_h5ad(tmp_path / "d.h5ad", compression="gzip")
    name = "X/data" if kind is sparse.csr_matrix else "X"
    with h5py.File(tmp_path / "d.h5ad") as file:
        last = file[name].id.get_chunk_info(file[name].id.get_num_chunks() - 1)
    content = bytearray((tmp_path / "d.h5ad").read_bytes())
    content[last.byte_offset : last.byte_offset + last.size] = bytes(last.size)
    (tmp_path / "d.h5ad").write_bytes(content)
    rows = opened(tmp_path / "d.h5ad").rows
    assert np.array_equal(rows.read(0, 3).toarray(), values[:3])
    with pytest.raises(SourceError, match=r"not readable as HDF5 .*, X, cells 3990 to 3999: .*complete"):
        rows.read(3990, 4000)


@pytest.mark.parametrize(
    ("array", "place", "value", "words"),
    [
        ("indptr", 2, 0, "X/indptr is damaged at cells 0 to 3: it does not ascend"),
        ("indptr", 1, 50, "X/indptr is damaged at cells 0 to 3: it does not ascend from 0 to 6"),
        ("indptr", 0, -1, "X/indptr is damaged at cells 0 to 3"),
        ("indptr", 4, 5, "its pointers end at 5, but it has 6 values"),
        ("indices", 2, -7, "X/indices is damaged at cells 0 to 3: it names gene number -7 of 3"),
    ],
)
def test_a_damaged_csr(tmp_path: Path, array: str, place: int, value: int, words: str):
    path = h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        file[f"X/{array}"][place] = value
    refused(path, SourceOptions(), words)


@pytest.mark.parametrize("array", ["data", "indices", "indptr"])
def test_arrays_that_do_not_fit_each_other(tmp_path: Path, array: str):
    path = h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        values = file[f"X/{array}"][:-1]
        del file[f"X/{array}"]
        file[f"X/{array}"] = values
    refused(path, SourceOptions(), "X is damaged: it has", "for 4 rows")


def test_columns_beyond_32_bits_are_not_taken_for_others(tmp_path: Path):
    path = h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        indices = file["X/indices"][:].astype(np.int64)
        indices[0] += 2**32
        del file["X/indices"]
        file["X/indices"] = indices
    refused(path, SourceOptions(), f"gene number {2**32} of 3")


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("dtype", [">f4", ">i4", "?", "u1"])
def test_numbers_of_other_machines_and_kinds(tmp_path: Path, kind: Callable, dtype: str):
    values = np.minimum(VALUES, 1)
    path = h5ad(tmp_path, values, kind)
    with h5py.File(path, "a") as file:
        name = "X" if kind is np.asarray else "X/data"
        attributes, content = dict(file[name].attrs), file[name][:].astype(dtype)
        del file[name]
        file[name] = content
        file[name].attrs.update(attributes)
    assert np.array_equal(table(opened(path)).to_numpy(), values)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, np.asarray])
def test_a_file_that_is_replaced_while_it_is_in_use(tmp_path: Path, kind: Callable):
    source = opened(h5ad(tmp_path, VALUES, kind))
    h5ad(tmp_path, VALUES[:2, :2], kind)
    with pytest.raises(SourceError, match=r"complete|was changed"):
        whole(source)
