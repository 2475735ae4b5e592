import gzip
from pathlib import Path

import pytest

from grndist.data.sources import SourceOptions, read_source
from tests.data.sources.files import assert_expected, folder_10x, h5_10x, refused, text


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "GSM1_"])
def test_10x_folder(tmp_path: Path, legacy: bool, prefix: str):
    source = read_source(folder_10x(tmp_path, prefix=prefix, legacy=legacy), SourceOptions())
    assert_expected(source)
    assert list(source.var["gene_ids"]) == ["ENSG0", "ENSG1", "ENSG2"]


@pytest.mark.parametrize("legacy", [False, True])
def test_10x_h5(tmp_path: Path, legacy: bool):
    source = read_source(h5_10x(tmp_path, legacy), SourceOptions())
    assert_expected(source)
    assert source.description == "10x h5"


def test_guides_in_a_10x_folder_are_left_out_and_counted(tmp_path: Path):
    path = folder_10x(tmp_path, types=("Gene Expression", "CRISPR Guide Capture", "Gene Expression"))
    source = read_source(path, SourceOptions())
    assert list(source.var.index) == ["STAT1", "IRF1"]
    assert source.description == "10x folder, 1 features of other types left out"


def test_folders_that_are_not_10x(tmp_path: Path):
    refused(tmp_path, SourceOptions(), "no matrix.mtx")
    folder = folder_10x(tmp_path)
    (folder / "features.tsv.gz").rename(folder / "features.tsv")
    refused(folder, SourceOptions(), "there is no 'features.tsv.gz'", "gzip")
    text(folder, "", "b_matrix.mtx")
    refused(folder, SourceOptions(), "several matrices")


@pytest.mark.parametrize("table_of", ["barcodes", "features"])
def test_a_10x_folder_whose_tables_do_not_fit(tmp_path: Path, table_of: str):
    folder = folder_10x(tmp_path)
    text(folder, "one\ttwo\tGene Expression\n", f"{table_of}.tsv.gz")
    refused(folder, SourceOptions(), "not readable as 10x folder")


def test_a_10x_matrix_cut_short(tmp_path: Path):
    folder = folder_10x(tmp_path)
    whole = gzip.decompress((folder / "matrix.mtx.gz").read_bytes())
    text(folder, whole[:-10], "matrix.mtx.gz")
    refused(folder, SourceOptions(), "not readable as 10x folder")
