import gzip
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from grndist.data.sources import SourceError, SourceOptions, read_source, source_digest

CELLS = ["AAAC-1", "AAAG-1", "AAAT-1", "AACA-1"]
GENES = ["STAT1", "JAK2", "IRF1"]
VALUES = np.array([[5, 0, 1], [0, 2, 70000], [0, 0, 0], [3, 0, 4]], dtype=np.float32)
EXPECTED = pd.DataFrame(VALUES, CELLS, GENES)
GENES_IN_ROWS = SourceOptions(orientation="genes_in_rows")
CELLS_IN_ROWS = SourceOptions(orientation="cells_in_rows")


def annotated(values=VALUES, kind: Callable = sparse.csr_matrix) -> anndata.AnnData:
    obs = pd.DataFrame({"batch": ["a", "a", "b", "b"]}, index=CELLS)
    var = pd.DataFrame({"symbol": ["s1", "s2", "s3"]}, index=GENES)
    return anndata.AnnData(kind(values), obs=obs, var=var)


def h5ad(folder: Path, values=VALUES, kind: Callable = sparse.csr_matrix) -> Path:
    annotated(values, kind).write_h5ad(folder / "data.h5ad")
    return folder / "data.h5ad"


def text(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def folder_10x(
    folder: Path, values=VALUES, prefix: str = "", legacy: bool = False, types=("Gene Expression",) * 3
) -> Path:
    folder = folder / "tenx"
    folder.mkdir()
    ids = [f"ENSG{number}" for number in range(values.shape[1])]
    rows = zip(ids, GENES, types, strict=True)
    features = "".join("\t".join(row[:2] if legacy else row) + "\n" for row in rows)
    end = "" if legacy else ".gz"
    scipy.io.mmwrite(folder / "plain.mtx", sparse.coo_matrix(values.T.astype(int)))
    text(folder, (folder / "plain.mtx").read_bytes(), f"{prefix}matrix.mtx{end}")
    (folder / "plain.mtx").unlink()
    text(folder, features, f"{prefix}{'genes' if legacy else 'features'}.tsv{end}")
    text(folder, "\n".join(CELLS) + "\n", f"{prefix}barcodes.tsv{end}")
    return folder


def h5_10x(folder: Path, legacy: bool = False) -> Path:
    matrix = sparse.csr_matrix(VALUES.astype(np.int32))
    ids = [f"ENSG{number}" for number in range(len(GENES))]
    with h5py.File(folder / "data.h5", "w") as file:
        group = file.create_group("GRCh38" if legacy else "matrix")
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape[::-1]}
        for name, value in parts.items():
            group[name] = value
        group["barcodes"] = np.array(CELLS, dtype="S")
        names = (
            {"genes": ids, "gene_names": GENES}
            if legacy
            else {
                "features/id": ids,
                "features/name": GENES,
                "features/feature_type": ["Gene Expression", "Gene Expression", "Gene Expression"],
                "features/genome": ["GRCh38"] * 3,
            }
        )
        for name, value in names.items():
            group[name] = np.array(value, dtype="S")
    return folder / "data.h5"


def table(source) -> pd.DataFrame:
    return pd.DataFrame(source.matrix.toarray(), source.obs.index, source.var.index)


def assert_expected(source) -> None:
    pd.testing.assert_frame_equal(table(source), EXPECTED, check_dtype=False)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint32])
def test_h5ad(tmp_path: Path, kind: Callable, dtype: type):
    source = read_source(h5ad(tmp_path, VALUES.astype(dtype), kind), SourceOptions())
    assert_expected(source)
    assert list(source.obs["batch"]) == ["a", "a", "b", "b"]
    assert source.description == "h5ad, X"
    assert not source.logged


def test_a_dense_h5ad_is_the_same_however_many_rows_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("grndist.data.sources.ROWS_AT_ONCE", 3)
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


def test_explicit_zeros_and_repeated_entries_are_merged(tmp_path: Path):
    matrix = sparse.csr_matrix(([1.0, 4.0, 0.0, 2.0], [0, 0, 2, 1], [0, 3, 4, 4, 4]), shape=(4, 3))
    data = annotated()
    data.X = matrix
    data.write_h5ad(tmp_path / "d.h5ad")
    source = read_source(tmp_path / "d.h5ad", SourceOptions())
    assert table(source).to_numpy().tolist() == [[5, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert source.matrix.nnz == 2


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


def test_an_h5ad_that_ends_in_h5_is_recognised(tmp_path: Path):
    assert_expected(read_source(h5ad(tmp_path).rename(tmp_path / "data.h5"), SourceOptions()))


@pytest.mark.parametrize(
    ("name", "separator"), [("d.csv", ","), ("d.CSV", ","), ("d.tsv", "\t"), ("d.txt.gz", "\t"), ("d.csv.gz", ",")]
)
def test_text_both_ways_round(tmp_path: Path, name: str, separator: str):
    path = text(tmp_path, EXPECTED.to_csv(sep=separator), name)
    assert_expected(read_source(path, CELLS_IN_ROWS))
    path = text(tmp_path, EXPECTED.T.to_csv(sep=separator), name)
    assert_expected(read_source(path, GENES_IN_ROWS))


@pytest.mark.parametrize(
    "content",
    [
        '"STAT1","JAK2"\n"c,1",1,0\n"c2",0,2.5\n',
        '"","STAT1","JAK2"\r\n"c,1",1,0\r\n"c2",0,2.5\r\n',
        '\ufeffcell,STAT1,JAK2\n"c,1", 1 ,0\n\nc2,0e0,2.5\n\n',
    ],
    ids=["R header, one name fewer", "quoted, CRLF", "byte order mark, blanks, empty lines"],
)
def test_headers_and_quotes(tmp_path: Path, content: str):
    expected = pd.DataFrame([[1, 0], [0, 2.5]], ["c,1", "c2"], ["STAT1", "JAK2"])
    source = read_source(text(tmp_path, content), CELLS_IN_ROWS)
    pd.testing.assert_frame_equal(table(source), expected, check_dtype=False)


@settings(max_examples=30, deadline=None)
@given(
    values=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.one_of(st.just(0.0), st.floats(1e-30, 1e30), st.integers(0, 2**40).map(float)),
    ).filter(np.any)
)
def test_any_table_comes_back_exactly(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory):
    rows, columns = [f"g{n}" for n in range(len(values))], [f"c{n}" for n in range(values.shape[1])]
    written = pd.DataFrame(values, rows, columns)
    path = text(tmp_path_factory.mktemp("text"), written.to_csv())
    pd.testing.assert_frame_equal(table(read_source(path, GENES_IN_ROWS)), written.T, check_exact=True)


def test_mdc_is_383_cells_by_821_genes_exact_to_float32(data_dir: Path):
    path = data_dir / "beeline_mDC_TFs500" / "ExpressionData.csv"
    source = read_source(path, GENES_IN_ROWS)
    assert source.matrix.shape == (383, 821)
    expected = pd.read_csv(path, index_col=0, float_precision="round_trip").T.astype(np.float32)
    pd.testing.assert_frame_equal(table(source).astype(np.float32), expected, check_exact=True, check_names=False)


def test_another_column_gives_the_gene_names(tmp_path: Path):
    source = read_source(h5ad(tmp_path), SourceOptions(gene_column="symbol"))
    assert list(source.var.index) == ["s1", "s2", "s3"]
    assert list(source.var["source_index"]) == GENES


def test_genes_of_one_name_are_told_apart_as_scanpy_does(tmp_path: Path):
    path = text(tmp_path, "cell,A,B,A,A\nc1,1,2,3,4\n")
    assert list(read_source(path, SourceOptions(orientation="cells_in_rows", make_genes_unique=True)).var.index) == [
        "A",
        "B",
        "A-1",
        "A-2",
    ]


def test_the_table_of_cells_is_joined_by_name(tmp_path: Path):
    cells = text(
        tmp_path, "cell,perturbation,umi\nAACA-1,JAK2,7\nAAAC-1,ctrl,9\nAAAG-1,STAT1,3\nother,IRF1,1\n", "c.csv"
    )
    source = read_source(folder_10x(tmp_path), SourceOptions(cells_table=cells))
    assert source.obs["perturbation"].tolist()[:2] == ["ctrl", "STAT1"]
    assert source.obs["umi"].isna().tolist() == [False, False, True, False]
    assert source.description == "10x folder; 3 of 4 cells are in c.csv"


def test_cells_called_by_numbers_keep_their_zeros(tmp_path: Path):
    path = text(tmp_path, "cell,A\n007,1\n8,2\n")
    cells = text(tmp_path, "batch\n8\ty\n007\tx\n", "c.tsv")
    source = read_source(path, SourceOptions(orientation="cells_in_rows", cells_table=cells))
    assert source.obs["batch"].to_dict() == {"007": "x", "8": "y"}


def test_the_digest_is_of_the_content(tmp_path: Path):
    path = text(tmp_path, "abc")
    assert source_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    folder = folder_10x(tmp_path)
    before = source_digest(folder)
    assert source_digest(folder) == before
    text(folder, "other\n", "barcodes.tsv.gz")
    assert source_digest(folder) != before


def refused(path: Path, options: SourceOptions, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_source(path, options)
    message = str(caught.value)
    assert str(path) in message or options.cells_table is not None
    for word in words:
        assert word in message


def test_missing_file(tmp_path: Path):
    refused(tmp_path / "none.h5ad", SourceOptions(), "no such file")


def test_unknown_kind(tmp_path: Path):
    refused(text(tmp_path, "x", "data.loom"), SourceOptions(), "unknown kind of file '.loom'", ".h5ad")


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


def test_options_that_do_not_fit_the_file(tmp_path: Path):
    refused(h5ad(tmp_path), SourceOptions(layer="a", raw=True), "exclude each other")
    refused(h5ad(tmp_path), GENES_IN_ROWS, "--genes-in-rows", "leave them out")
    refused(text(tmp_path, "cell,A\nc,1\n"), SourceOptions(layer="counts"), "--layer", "leave them out")
    refused(h5_10x(tmp_path), SourceOptions(raw=True), "not an h5ad")


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, np.asarray])
def test_no_cells_or_no_genes(tmp_path: Path, shape: tuple[int, int], kind: Callable):
    anndata.AnnData(kind(np.zeros(shape, dtype=np.float32))).write_h5ad(tmp_path / "d.h5ad")
    refused(tmp_path / "d.h5ad", SourceOptions(), "is empty", f"{shape[0]} cells, {shape[1]} genes")


def test_only_zeros(tmp_path: Path):
    refused(h5ad(tmp_path, VALUES * 0), SourceOptions(), "is empty", "all values of its 4 cells and 3 genes are zero")


@pytest.mark.parametrize("content", ["", "\n\n", "cell,A,B\n"])
def test_empty_text(tmp_path: Path, content: str):
    refused(text(tmp_path, content), CELLS_IN_ROWS, "is empty")


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-1.5, "-1.5"), (-np.inf, "-inf")])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_values_that_are_missing_infinite_or_negative(tmp_path: Path, kind: Callable, value: float, shown: str):
    values = VALUES.copy()
    values[3, 1] = value
    refused(
        h5ad(tmp_path, values, kind), SourceOptions(), f"gene 'JAK2' in cell 'AACA-1' is {shown} (1 such", "--layer"
    )


def test_a_value_beyond_float32_counts_as_infinite(tmp_path: Path):
    refused(text(tmp_path, "cell,A\nc,1e300\n"), CELLS_IN_ROWS, "gene 'A' in cell 'c' is 1e+300")


def test_orientation_must_be_said(tmp_path: Path):
    path = text(tmp_path, EXPECTED.to_csv())
    refused(path, SourceOptions(), "--genes-in-rows or --cells-in-rows", "rows are called 'AAAC-1'", "columns 'STAT1'")


def test_ragged_line(tmp_path: Path):
    path = text(tmp_path, "cell,A,B\nc1,1,2\n\nc2,1,2,3\n")
    refused(path, CELLS_IN_ROWS, "line 4, row 'c2': 4 fields, but 3")
    refused(text(tmp_path, "cell,A,B\nc1,1\nc2,1,2\n"), SourceOptions(), "line 2, row 'c1'", "mend or remove")
    refused(text(tmp_path, "A,B,C,D\nc1,1\n"), CELLS_IN_ROWS, "line 2, row 'c1': 2 fields, but 4 in the header")


@pytest.mark.parametrize("found", ["", "NA", "1,5", "abc", "0x1"])
def test_a_cell_that_is_no_number(tmp_path: Path, found: str):
    path = text(tmp_path, f"cell\tA\tB\nc1\t1\t2\nc2\t{found}\t2\n", "d.tsv")
    refused(path, CELLS_IN_ROWS, f"line 3, row 'c2', column 'A': {found!r} is not a number")


def test_the_wrong_delimiter(tmp_path: Path):
    refused(text(tmp_path, "cell;A;B\nc1;1;2\n"), CELLS_IN_ROWS, "one field", "','", "'c1;1;2'")


def test_a_table_without_row_names(tmp_path: Path):
    refused(text(tmp_path, "A,B\n0.5,1\n0.25,2\n"), CELLS_IN_ROWS, "'0.5', '0.25', not names")


@pytest.mark.parametrize("content", [b"cell,\xff\xfe\n", b"\x00\x01"])
def test_binary_in_text(tmp_path: Path, content: bytes):
    refused(text(tmp_path, content), CELLS_IN_ROWS)


def test_truncated_gzip(tmp_path: Path):
    path = text(tmp_path, EXPECTED.to_csv(), "d.csv.gz")
    path.write_bytes(path.read_bytes()[:-12])
    refused(path, CELLS_IN_ROWS, "not readable as text table", "complete")
    path.write_text("not gzip")
    refused(path, CELLS_IN_ROWS, "not readable as text table", "gzip")


def test_cell_names_twice_or_missing(tmp_path: Path):
    path = text(tmp_path, "cell,A\n" + "".join(f"c{n % 4},1\n" for n in range(8)))
    refused(path, CELLS_IN_ROWS, "4 cell names are not unique", "'c0', 'c1', 'c2', ...")
    refused(text(tmp_path, "cell,A\nc1,1\n,2\n"), CELLS_IN_ROWS, "1 cells have no name (number 2)")
    data = annotated()
    data.obs_names = ["a", "a", "b", "b"]
    data.write_h5ad(tmp_path / "d.h5ad")
    refused(tmp_path / "d.h5ad", SourceOptions(), "2 cell names are not unique", "'a', 'b'")


def test_gene_names_twice(tmp_path: Path):
    path = text(tmp_path, "cell,A,B,A\nc1,1,2,3\n")
    refused(path, CELLS_IN_ROWS, "1 gene names are not unique", "'A'", "--gene-column", "--make-genes-unique")


def test_duplicated_symbols_of_a_10x_folder_offer_the_identifiers(tmp_path: Path):
    path = folder_10x(tmp_path)
    text(path, "".join(f"E{n}\tDUP\tGene Expression\n" for n in range(3)), "features.tsv.gz")
    refused(path, SourceOptions(), "'DUP'", "--gene-column", "'gene_ids'")
    assert list(read_source(path, SourceOptions(gene_column="gene_ids")).var.index) == ["E0", "E1", "E2"]


def test_gene_names_missing(tmp_path: Path):
    refused(text(tmp_path, "cell,A,,nan\nc1,1,2,3\n"), CELLS_IN_ROWS, "2 genes have no name (number 2, 3)")
    data = annotated()
    data.var["symbol"] = pd.Categorical(["a", None, "c"])
    data.write_h5ad(tmp_path / "d.h5ad")
    refused(
        tmp_path / "d.h5ad", SourceOptions(gene_column="symbol"), "1 genes have no name (number 2)", "--gene-column"
    )


def test_absent_gene_column_names_those_there_are(tmp_path: Path):
    refused(h5ad(tmp_path), SourceOptions(gene_column="gene"), "no column 'gene'", "'symbol'", "--gene-column")


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


def test_tables_of_cells_that_do_not_fit(tmp_path: Path):
    path = h5ad(tmp_path)

    def with_table(content: str | None) -> SourceOptions:
        return SourceOptions(
            cells_table=tmp_path / "none.csv" if content is None else text(tmp_path, content, "cells.csv")
        )

    refused(path, with_table(None), "none.csv: no such file", "--cells-table")
    refused(path, with_table("cell,x\nother,1\n"), "'other'", "names no cell of the matrix", "'AAAC-1'")
    refused(path, with_table("cell,x\nAAAC-1,1\nAAAC-1,2\n"), "not unique", "'AAAC-1'")
    refused(path, with_table("cell,batch\nAAAC-1,1\n"), "columns 'batch' already")
    refused(path, with_table("cell,a/b\nAAAC-1,1\n"), "columns called 'a/b'", "rename")
    refused(path, with_table(""), "not readable as table of cells")
    refused(path, with_table("cell,x\nAAAC-1,1,2,3\na,b\nc,d,e,f,g\n"), "table of cells")
