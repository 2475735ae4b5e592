from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from grndist.data.sources import SourceOptions, read_source
from tests.data.sources.files import EXPECTED, GENES, VALUES, annotated, assert_expected, h5ad, refused, table, text


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint32])
def test_h5ad(tmp_path: Path, kind: Callable, dtype: type):
    source = read_source(h5ad(tmp_path, VALUES.astype(dtype), kind), SourceOptions())
    assert_expected(source)
    assert list(source.obs["batch"]) == ["a", "a", "b", "b"]
    assert source.description == "h5ad, X"
    assert not source.logged


def test_a_dense_h5ad_is_the_same_however_many_rows_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grndist.data.sources.hdf5.ROWS_AT_ONCE", 3)
    assert_expected(read_source(h5ad(tmp_path, kind=np.asarray), SourceOptions()))


def test_half_precision_in_a_dense_h5ad(tmp_path: Path):
    source = read_source(h5ad(tmp_path, np.minimum(VALUES, 100).astype(np.float16), np.asarray), SourceOptions())
    assert table(source).loc["AAAG-1", "IRF1"] == 100


def test_layer_and_raw_are_read_instead_of_x(tmp_path: Path):
    whole = annotated()
    data = anndata.AnnData(VALUES[:, :2] / 7, obs=whole.obs, var=whole.var[:2], layers={"counts": VALUES[:, :2] * 2})
    data.raw = whole
    data.uns["log1p"] = {}
    data.write_h5ad(tmp_path / "d.h5ad")
    layer = read_source(tmp_path / "d.h5ad", SourceOptions(layer="counts"))
    pd.testing.assert_frame_equal(table(layer), EXPECTED[GENES[:2]] * 2)
    assert layer.logged
    assert layer.description == "h5ad, layers/counts"
    assert_expected(read_source(tmp_path / "d.h5ad", SourceOptions(raw=True)))


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
    refused(path, SourceOptions(), "indices must be < 3")


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
