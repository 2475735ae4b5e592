import gzip
import logging
from pathlib import Path

import pandas as pd
import pytest

from grndist.errors import UserError
from grndist.evaluation.references import read_reference
from grndist.networks.edges import edge_list
from grndist.networks.io import write_edges

EDGES = [["A", "B"], ["B", "C"]]


def written(folder: Path, text: str, name: str = "net.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "names_regulators", "signs"),
    [
        ("regulator,target\nA,B\nB,C\n", True, None),
        ("regulator,target,weight\nA,B,2.5\nB,C,-0.5\n", True, [1, -1]),
        ("regulator,target,weight\nA,B,2.5\nB,C,0.5\n", True, None),
        ("Gene1,Gene2\nA,B\nB,C\n", True, None),
        ("Gene1,Gene2,Type\nA,B,+\nB,C,-\n", True, [1, -1]),
        ("Gene1,Gene2,Score\nA,B,171\nB,C,154\n", True, None),
        ("tf,confidence,target,mor\nA,E,B,-1.0\nB,D,C,1.0\n", True, [-1, 1]),
        ("A\tB\tActivation\t123\nB\tC\tUnknown\t4;5\n", True, [1, 0]),
        ("A\tB\tRepression\t123\nB\tC\tActivation\t4\n", True, [-1, 1]),
        ("A\tB\t-\nB\tC\t+-\n", True, [-1, 0]),
        ("A\tB\nB\tC\n", False, None),
        ("protein1,protein2\nA,B\nB,C\n", False, None),
    ],
    ids=[
        *["ours", "ours-signed", "ours-unsigned", "beeline", "beeline-signed", "beeline-chip", "dorothea"],
        *["trrust", "trrust-signs", "regulondb", "no-header", "header"],
    ],
)
def test_the_published_formats_are_read(tmp_path, text, names_regulators, signs):
    reference = read_reference(written(tmp_path, text, "net.tsv"))
    assert reference.table[["regulator", "target"]].to_numpy().tolist() == EDGES
    assert reference.names_regulators is names_regulators
    assert (reference.table["sign"].tolist() if "sign" in reference.table else None) == signs
    assert (reference.dropped_self, reference.dropped_duplicates, len(reference)) == (0, 0, 2)


def test_our_own_edge_list_is_a_reference_with_signs(tmp_path):
    write_edges(edge_list(["A", "B"], ["B", "C"], [2.0, -1.0], signed=True), tmp_path / "truth.parquet")
    reference = read_reference(tmp_path / "truth.parquet")
    assert reference.table.to_numpy().tolist() == [["A", "B", 1], ["B", "C", -1]]
    assert reference.names_regulators


def test_gzip_is_looked_through(tmp_path):
    (tmp_path / "net.csv.gz").write_bytes(gzip.compress(b"Gene1,Gene2\nA,B\nB,C\n"))
    assert read_reference(tmp_path / "net.csv.gz").table.to_numpy().tolist() == EDGES


def test_integer_names_in_parquet_become_strings(tmp_path):
    pd.DataFrame({"tf": [1, 2], "target": [2, 3]}).to_parquet(tmp_path / "net.parquet")
    assert read_reference(tmp_path / "net.parquet").table.to_numpy().tolist() == [["1", "2"], ["2", "3"]]


def test_self_edges_and_duplicates_are_dropped_with_a_count(tmp_path, caplog):
    text = "Gene1,Gene2\nA,B\nB,B\nA,B\nB,A\nA,B\n"
    with caplog.at_level(logging.WARNING):
        reference = read_reference(written(tmp_path, text))
    assert reference.table.to_numpy().tolist() == [["A", "B"], ["B", "A"]]
    assert (reference.dropped_self, reference.dropped_duplicates) == (1, 2)
    assert "1 self-edges and 2 duplicates" in caplog.text


def test_a_pair_with_both_signs_has_none_and_unknown_does_not_hide_a_sign(tmp_path):
    text = "A\tB\tActivation\nA\tB\tRepression\nB\tC\tUnknown\nB\tC\tRepression\n"
    reference = read_reference(written(tmp_path, text, "net.tsv"))
    assert reference.table.to_numpy().tolist() == [["A", "B", 0], ["B", "C", -1]]
    assert reference.dropped_duplicates == 2


def test_a_type_that_is_no_sign_makes_no_signs(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        reference = read_reference(written(tmp_path, "tf,target,type\nA,B,ChIP-seq\n"))
    assert "sign" not in reference.table
    assert "'type' are not signs" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("Gene1,Gene2\n", "no edge between two different genes"),
        ("A,A\n", "no edge between two different genes"),
        ("A\nB\n", "has one column \\('A'\\)"),
        ("x,y,z\nA,B,C\n", "none of its 3 columns \\('x', 'y', 'z'\\) are called regulator and target"),
        ("Gene1,Gene2\nA,B\nB,\n", "row 2: a gene name is missing"),
        ("Gene1,Gene2\nA,B\nB\n", "row 2: a gene name is missing"),
        ("Gene1,Gene2\nA,B\nB,C,D\n", "not a table"),
    ],
)
def test_what_is_no_network_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_reference(written(tmp_path, text))
    assert "net.csv" in str(error.value)


def test_a_missing_file_and_an_unknown_ending_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_reference(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"ending '\.rda'"):
        read_reference(tmp_path / "net.rda")


@pytest.mark.parametrize(
    ("file", "counts", "signs"),
    [
        ("reference_networks/trrust_rawdata.human.tsv", (8403, 27, 966), {-1, 0, 1}),
        ("reference_networks/ecoli_transcriptional_network_regulonDB_6_7.tsv", (3648, 110, 0), {-1, 0, 1}),
        ("reference_networks/dorothea_hs.csv.gz", (454504, 0, 0), {-1, 1}),
        ("reference_networks/hESC_TFs500/TFs+500/BL--network.csv", (4257, 0, 0), set()),
        ("beeline_GSD_example/GroundTruthNetwork.csv", (76, 3, 7), {-1, 1}),
        ("dream4_size100_1/edges_net1.csv", (176, 0, 0), set()),
    ],
)
def test_real_files_are_read_whole(data_dir, file, counts, signs):
    """`counts` are edges, self-edges dropped and duplicates dropped."""
    reference = read_reference(data_dir / file)
    assert (len(reference), reference.dropped_self, reference.dropped_duplicates) == counts
    assert set(reference.table.get("sign", [])) == signs
    assert reference.names_regulators
