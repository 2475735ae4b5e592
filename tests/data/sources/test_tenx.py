import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.io
from scipy import sparse

from grndist.data.sources import SourceOptions
from tests.data.sources.files import VALUES, assert_expected, folder_10x, h5_10x, opened, refused, text, whole


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "GSM1_"])
def test_10x_folder(tmp_path: Path, legacy: bool, prefix: str):
    source = opened(folder_10x(tmp_path, prefix=prefix, legacy=legacy), SourceOptions())
    assert_expected(source)
    assert list(source.var["gene_ids"]) == ["ENSG0", "ENSG1", "ENSG2"]


@pytest.mark.parametrize("legacy", [False, True])
def test_10x_h5(tmp_path: Path, legacy: bool):
    source = opened(h5_10x(tmp_path, legacy), SourceOptions())
    assert_expected(source)
    assert source.description == "10x h5"


def test_guides_in_a_10x_folder_are_left_out_and_counted(tmp_path: Path):
    path = folder_10x(tmp_path, types=("Gene Expression", "CRISPR Guide Capture", "Gene Expression"))
    source = opened(path, SourceOptions())
    assert list(source.var.index) == ["STAT1", "IRF1"]
    assert source.description == "10x folder, 1 features of other types left out"


def test_folders_that_are_not_10x(tmp_path: Path):
    refused(tmp_path, SourceOptions(), "no matrix.mtx")
    folder = folder_10x(tmp_path)
    (folder / "features.tsv.gz").rename(folder / "other.tsv.gz")
    refused(folder, SourceOptions(), "there is no 'features.tsv.gz'", "plain or as .gz")
    text(folder, "", "b_matrix.mtx")
    refused(folder, SourceOptions(), "several matrices")


@pytest.mark.parametrize("table_of", ["barcodes", "features"])
def test_a_10x_folder_whose_tables_do_not_fit(tmp_path: Path, table_of: str):
    folder = folder_10x(tmp_path)
    text(folder, "one\ttwo\tGene Expression\n", f"{table_of}.tsv.gz")
    lines = {"barcodes": 4, "features": 3} | {table_of: 1}
    refused(folder, SourceOptions(), "matrix.mtx.gz is 3 x 4", f"features.tsv.gz has {lines['features']} lines")


def test_a_table_of_features_without_their_types(tmp_path: Path):
    folder = folder_10x(tmp_path)
    text(folder, "E1\tA\nE2\tB\nE3\tC\n", "features.tsv.gz")
    refused(folder, SourceOptions(), "not readable as 10x folder")


@pytest.mark.parametrize("cut", [8, 14, 20, 40])
def test_a_10x_matrix_cut_short(tmp_path: Path, cut: int):
    folder = folder_10x(tmp_path)
    content = gzip.decompress((folder / "matrix.mtx.gz").read_bytes())
    text(folder, content[:-cut], "matrix.mtx.gz")
    refused(folder, SourceOptions(), "download or write it again")
    text(folder, content, "matrix.mtx.gz")
    compressed = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(compressed[:-cut])
    refused(folder, SourceOptions(), "not readable as 10x folder")


def test_a_10x_folder_of_plain_files(tmp_path: Path):
    folder = folder_10x(tmp_path)
    for file in list(folder.iterdir()):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    source = opened(folder)
    assert_expected(source)
    assert list(source.var["feature_types"]) == ["Gene Expression"] * 3


@pytest.mark.parametrize("make", [folder_10x, h5_10x])
def test_tables_and_values_are_those_of_scanpy(tmp_path: Path, make: Callable):
    path = make(tmp_path, types=("Gene Expression", "CRISPR Guide Capture", "Gene Expression"))
    expected = scanpy.read_10x_mtx(path) if path.is_dir() else scanpy.read_10x_h5(path)
    source = opened(path)
    pd.testing.assert_frame_equal(source.var, expected.var, check_dtype=False, check_column_type=False)
    pd.testing.assert_frame_equal(source.obs, expected.obs, check_dtype=False, check_column_type=False)
    assert np.array_equal(whole(source).toarray(), expected.X.toarray())


def test_an_h5_with_probes_is_read_as_scanpy_reads_it(tmp_path: Path):
    path = h5_10x(tmp_path)
    with h5py.File(path, "a") as file:
        file["matrix/features/gene_id"] = np.array(["E1", "E2", "E3"], dtype="S")
        file["matrix/features/filtered_probes"] = np.array([True, False, True])
        file["matrix/filtered_barcodes"] = np.array([1, 0, 1, 1], dtype=bool)
    expected, source = scanpy.read_10x_h5(path), opened(path)
    pd.testing.assert_frame_equal(source.var, expected.var, check_dtype=False, check_column_type=False)
    pd.testing.assert_frame_equal(source.obs, expected.obs, check_dtype=False, check_column_type=False)


@pytest.mark.parametrize(
    ("written", "usual"), [("pattern", "integer"), ("symmetric", "general"), ("array", "coordinate")]
)
def test_matrices_of_another_kind(tmp_path: Path, written: str, usual: str):
    folder = folder_10x(tmp_path)
    content = gzip.decompress((folder / "matrix.mtx.gz").read_bytes()).decode()
    text(folder, content.replace(usual, written, 1), "matrix.mtx.gz")
    refused(folder, SourceOptions(), "first line", written, "coordinate integer general")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("4 1 7", "entries 1 to 6 name feature 4 of 3"),
        ("1 5 7", "entries 1 to 6 name barcode 5 of 4"),
        ("0 1 7", "entries 1 to 6 name feature 0 of 3"),
        ("1 1 seven", "not readable as 10x folder"),
        ("1 1", "not readable as 10x folder"),
        ("1 1 7\n1 2 3", "has 7 entries where its header says 6"),
    ],
)
def test_entries_that_cannot_be(tmp_path: Path, line: str, words: str):
    folder = folder_10x(tmp_path)
    lines = gzip.decompress((folder / "matrix.mtx.gz").read_bytes()).decode().splitlines()
    text(folder, "\n".join([*lines[:-1], line]) + "\n", "matrix.mtx.gz")
    refused(folder, SourceOptions(), words)


def test_a_10x_folder_without_any_entry(tmp_path: Path):
    source = opened(folder_10x(tmp_path, values=VALUES * 0))
    assert whole(source).nnz == 0
    assert source.rows.n_stored == 0


def test_values_of_a_matrix_need_not_be_whole(tmp_path: Path):
    folder = folder_10x(tmp_path)
    scipy.io.mmwrite(tmp_path / "m.mtx", sparse.coo_matrix(VALUES.T.astype(float) / 3))
    text(folder, (tmp_path / "m.mtx").read_bytes(), "matrix.mtx.gz")
    assert np.allclose(whole(opened(folder)).toarray(), VALUES.astype(float) / 3, rtol=1e-12)


def test_an_h5_whose_tables_do_not_fit(tmp_path: Path):
    path = h5_10x(tmp_path)
    with h5py.File(path, "a") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array(["a", "b"], dtype="S")
    refused(path, SourceOptions(), "matrix is 3 x 4", "3 features and 2 barcodes")
