import gzip
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.errors import UserError
from grndist.networks import io
from grndist.networks.edges import edge_list
from grndist.networks.io import read_edges, write_edges

EDGES = edge_list(
    ["NA", "b", "nan", "b"],  # real gene names that pandas takes for missing values
    ["b", "NA", "c", "nan"],
    [0.1 + 0.2, -1e-300, 0.0, 12345.678901234567],
    genes=["NA", "b", "nan", "c", "never named"],
    signed=True,
    origin={"run": "é", "store": "sha256:0"},
)
TEXT_ENDINGS = ["tsv", "csv", "tsv.gz", "csv.gz", "CSV"]


@pytest.mark.parametrize("ending", ["parquet", *TEXT_ENDINGS])
def test_a_table_reads_back_as_it_was(tmp_path, ending):
    path = tmp_path / f"edges.{ending}"
    write_edges(EDGES, path)
    pd.testing.assert_frame_equal(read_edges(path).table, EDGES.table, check_exact=True)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_every_digit_of_a_weight_survives_text(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("text") / "edges.tsv"
    edges = edge_list([f"r{i}" for i in range(len(weights))], ["t"] * len(weights), weights)
    write_edges(edges, path)
    assert read_edges(path).table.equals(edges.table)


def test_parquet_keeps_genes_signs_and_origin(tmp_path):
    path = tmp_path / "edges.parquet"
    write_edges(EDGES, path)
    back = read_edges(path)
    assert (back.genes, back.signed, back.origin) == (EDGES.genes, EDGES.signed, EDGES.origin)


def test_parquet_of_several_row_groups_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "ROWS_PER_GROUP", 3)
    write_edges(EDGES, tmp_path / "edges.parquet")
    assert io.pq.ParquetFile(tmp_path / "edges.parquet").num_row_groups == 2
    assert read_edges(tmp_path / "edges.parquet").table.equals(EDGES.table)


@pytest.mark.parametrize("ending", ["parquet", "tsv.gz"])
def test_the_same_edges_give_the_same_bytes(tmp_path, ending):
    for name in ["one", "two"]:
        write_edges(EDGES, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "regulator,target,weight\nA,B,2\nB,C,-1\n",
        "Gene1\tGene2\tEdgeWeight\nA\tB\t2\nB\tC\t-1\n",
        "TF,target,importance\nA,B,2\nB,C,-1\n",
        ",Source,Target,EdgeWeight\n0,A,B,2\n1,B,C,-1\n",
        "weight,target,source\n2,B,A\n-1,C,B\n",
        "\ufeffsource,target,weight\r\nA,B,2\r\nB,C,-1\r\n",
    ],
    ids=["ours", "beeline-tabs", "arboreto", "dazzle-with-index", "any-order", "excel"],
)
def test_tables_of_other_tools_are_read(tmp_path, text):
    path = tmp_path / "rankedEdges.csv"
    path.write_text(text, newline="")
    edges = read_edges(path)
    assert edges.table.to_numpy().tolist() == [["A", "B", 2.0], ["B", "C", -1.0]]
    assert edges.signed


def test_parquet_of_other_tools_is_read(tmp_path):
    table = pd.DataFrame({"TF": ["A", "A"], "target": ["B", "C"], "importance": np.float32([1, 3])})
    table.to_parquet(tmp_path / "grnboost.parquet")
    edges = read_edges(tmp_path / "grnboost.parquet")
    assert edges.table.to_numpy().tolist() == [["A", "C", 3.0], ["A", "B", 1.0]]
    assert (edges.signed, edges.genes) == (False, ())


def test_self_loops_go_and_duplicates_keep_the_strongest_with_a_count(tmp_path, caplog):
    path = tmp_path / "edges.csv"
    path.write_text("regulator,target,weight\nA,A,9\nA,B,1\nA,B,-2\nB,A,-1\nB,A,1\nB,B,0\n")
    with caplog.at_level(logging.WARNING):
        edges = read_edges(path)
    assert edges.table.to_numpy().tolist() == [["A", "B", -2.0], ["B", "A", 1.0]]
    assert "2 self-loops and 2 duplicate edges" in caplog.text


def test_an_existing_file_stays_unless_overwritten(tmp_path):
    path = tmp_path / "edges.tsv"
    path.write_text("precious")
    with pytest.raises(UserError, match="--overwrite"):
        write_edges(EDGES, path)
    assert path.read_text() == "precious"
    write_edges(EDGES, path, overwrite=True)
    assert read_edges(path).table.equals(EDGES.table)
    assert [file.name for file in tmp_path.iterdir()] == ["edges.tsv"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "ROWS_PER_GROUP", 1)
    table = EDGES.table.astype({"weight": object})
    table.loc[2, "weight"] = "not a number"
    with pytest.raises(io.pa.ArrowException):
        write_edges(type(EDGES)(table), tmp_path / "edges.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["edges.txt2", "edges", "edges.parquet.gz", "edges.xlsx"])
def test_an_unknown_ending_is_refused_in_both_directions(tmp_path, name):
    with pytest.raises(UserError, match=r"use \.parquet, \.tsv, \.csv"):
        write_edges(EDGES, tmp_path / name)
    with pytest.raises(UserError, match=r"use \.parquet, \.tsv, \.csv"):
        read_edges(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("regulator,target,weight\n", "no rows"),
        ("regulator,target,weight\nA,A,1\n", "only self-loops"),
        ("from,to,weight\nA,B,1\n", "no column for regulator and target; its columns are 'from', 'to', 'weight'"),
        ("A,B,1\nB,C,2\n", "no column for regulator and target and weight"),
        ("regulator,target,weight\nA,B,1\nB,C,high\n", r"row 2 \(B -> C\): the weight 'high' is not a finite number"),
        ("regulator,target,weight\nA,B,1\nB,C,\n", "row 2 .*''"),
        ("regulator,target,weight\nA,B,nan\n", "row 1 .*'nan'"),
        ("regulator,target,weight\nA,B,-inf\n", "row 1 .*'-inf'"),
        ("regulator,target,weight\nA,B,1\n,C,1\n", "row 2: a gene name is missing"),
        ("regulator,target,weight\nA,B,1,7,8\n", "not a table"),
        (b"\x89HDF\r\n\x1a\n\xff\xfe\x00", "not a table"),
    ],
)
def test_a_bad_text_file_is_named_with_the_place(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_edges(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"PAR1", b"not parquet at all", b""])
def test_a_bad_parquet_file_is_refused(tmp_path, content):
    path = tmp_path / "bad.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a Parquet file"):
        read_edges(path)


def test_a_cut_parquet_file_is_refused(tmp_path):
    path = tmp_path / "edges.parquet"
    write_edges(EDGES, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a Parquet file"):
        read_edges(path)


@pytest.mark.parametrize(
    "content", [b"plain text", gzip.compress(b"regulator,target,weight\nA,B,1\n" * 999)[:-40]], ids=["text", "cut"]
)
def test_a_bad_gzip_file_is_refused(tmp_path, content):
    (tmp_path / "bad.csv.gz").write_bytes(content)
    with pytest.raises(UserError, match="not a table"):
        read_edges(tmp_path / "bad.csv.gz")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_file_and_a_folder_are_refused(tmp_path, ending):
    with pytest.raises(UserError, match="no such file"):
        read_edges(tmp_path / f"none.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        read_edges(tmp_path / f"folder.{ending}")


def test_ranked_edges_are_written_as_beeline_reads_them(tmp_path):
    edges = edge_list(["A", "B"], ["B", "C"], [-2.5, 0.25], signed=True)
    write_edges(edges, tmp_path / "rankedEdges.csv")
    assert (tmp_path / "rankedEdges.csv").read_text() == "Gene1\tGene2\tEdgeWeight\nA\tB\t-2.5\nB\tC\t0.25\n"
    assert read_edges(tmp_path / "rankedEdges.csv").table.equals(edges.table)
