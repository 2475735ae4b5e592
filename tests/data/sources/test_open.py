from pathlib import Path

from grndist.data.sources import SourceOptions, source_digest
from tests.data.sources.files import GENES_IN_ROWS, assert_expected, folder_10x, h5_10x, h5ad, opened, refused, text


def test_an_h5ad_that_ends_in_h5_is_recognised(tmp_path: Path):
    assert_expected(opened(h5ad(tmp_path).rename(tmp_path / "data.h5"), SourceOptions()))


def test_the_digest_is_of_the_content(tmp_path: Path):
    path = text(tmp_path, "abc")
    assert source_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    folder = folder_10x(tmp_path)
    before = source_digest(folder)
    assert source_digest(folder) == before
    text(folder, "other\n", "barcodes.tsv.gz")
    assert source_digest(folder) != before


def test_missing_file(tmp_path: Path):
    refused(tmp_path / "none.h5ad", SourceOptions(), "no such file")


def test_unknown_kind(tmp_path: Path):
    refused(text(tmp_path, "x", "data.loom"), SourceOptions(), "unknown kind of file '.loom'", ".h5ad")


def test_options_that_do_not_fit_the_file(tmp_path: Path):
    refused(h5ad(tmp_path), SourceOptions(layer="a", raw=True), "exclude each other")
    refused(h5ad(tmp_path), GENES_IN_ROWS, "--genes-in-rows", "leave them out")
    refused(text(tmp_path, "cell,A\nc,1\n"), SourceOptions(layer="counts"), "--layer", "leave them out")
    refused(h5_10x(tmp_path), SourceOptions(raw=True), "not an h5ad")
