from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grndist.data.sources import SourceOptions
from tests.data.sources.files import (
    CELLS_IN_ROWS,
    EXPECTED,
    GENES_IN_ROWS,
    assert_expected,
    opened,
    refused,
    table,
    text,
)


@pytest.mark.parametrize(
    ("name", "separator"), [("d.csv", ","), ("d.CSV", ","), ("d.tsv", "\t"), ("d.txt.gz", "\t"), ("d.csv.gz", ",")]
)
def test_text_both_ways_round(tmp_path: Path, name: str, separator: str):
    path = text(tmp_path, EXPECTED.to_csv(sep=separator), name)
    assert_expected(opened(path, CELLS_IN_ROWS))
    path = text(tmp_path, EXPECTED.T.to_csv(sep=separator), name)
    assert_expected(opened(path, GENES_IN_ROWS))


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
    source = opened(text(tmp_path, content), CELLS_IN_ROWS)
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
    pd.testing.assert_frame_equal(table(opened(path, GENES_IN_ROWS)), written.T, check_exact=True)


def test_mdc_is_383_cells_by_821_genes_exact_to_float32(data_dir: Path):
    path = data_dir / "beeline_mDC_TFs500" / "ExpressionData.csv"
    source = opened(path, GENES_IN_ROWS)
    assert source.rows.shape == (383, 821)
    expected = pd.read_csv(path, index_col=0, float_precision="round_trip").T.astype(np.float32)
    pd.testing.assert_frame_equal(table(source).astype(np.float32), expected, check_exact=True, check_names=False)


@pytest.mark.parametrize("content", ["", "\n\n", "cell,A,B\n"])
def test_empty_text(tmp_path: Path, content: str):
    refused(text(tmp_path, content), CELLS_IN_ROWS, "is empty")


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
