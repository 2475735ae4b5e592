import gzip
import logging
from pathlib import Path

import pandas as pd
import pytest

from grndist.errors import UserError
from grndist.evaluation.references import named_reference, read_reference
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


# --- layouts that are no table of edges ---

CORUM = (
    "ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\tsubunits(Gene name)\tDisease comment\n"
    "1\tBCL6-HDAC4\tHuman\tP41182;P56524\tBCL6;HDAC4\tNone\n"
    '2\t"a 3\' one"\tHuman\tP1;P2;P3;P3\tHDAC4;BCL6;NCOR1;NCOR1\tNone\n'
    "3\talone\tHuman\tP9\tSTAT1\tNone\n"
)
BOTH_WAYS = {("BCL6", "HDAC4"), ("BCL6", "NCOR1"), ("HDAC4", "NCOR1")}
LINKS = (
    "protein1 protein2 neighborhood fusion combined_score\n"
    "9606.ENSP1 9606.ENSP2 0 0 490\n9606.ENSP2 9606.ENSP1 0 0 490\n"
    "9606.ENSP1 9606.ENSP3 0 0 173\n9606.ENSP3 9606.ENSP4 0 0 900\n"
)
INFO = (
    "#string_protein_id\tpreferred_name\tprotein_size\tannotation\n"
    "9606.ENSP1\tARF5\t180\tADP; 5' one\n9606.ENSP2\tM6PR\t277\tx\n9606.ENSP3\tFKBP4\t459\ty\n"
)
CHIP = "Target_genes\t{0}|Average\tSRX1|K-562\tSTRING\nIRF1\t512.5\t900\t0\n{0}\t80\t80\t0\nJAK2\t0\t0\t9\n"


def edges_of(reference) -> set[tuple[str, str]]:
    return set(reference.table[["regulator", "target"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("column", ["subunits(Gene name)", "subunits_gene_name"], ids=["to 4", "5"])
def test_all_pairs_of_a_complex_of_corum_are_edges_both_ways(tmp_path, column):
    reference = read_reference(written(tmp_path, CORUM.replace("subunits(Gene name)", column), "humanComplexes.txt"))
    assert edges_of(reference) == BOTH_WAYS | {(b, a) for a, b in BOTH_WAYS}
    assert not reference.names_regulators


@pytest.mark.parametrize("name", ["9606.protein.links.detailed.v11.5.txt.gz", "9606.protein.physical.links.txt"])
def test_links_of_string_get_the_names_of_the_file_beside_them(tmp_path, name):
    content = LINKS.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UserError, match=r"put protein\.info of the same release beside it"):
        read_reference(tmp_path / name)
    (tmp_path / "9606.protein.info.v11.5.txt.gz").write_bytes(gzip.compress(INFO.encode()))
    reference = read_reference(tmp_path / name)
    assert edges_of(reference) == {("ARF5", "M6PR"), ("M6PR", "ARF5"), ("ARF5", "FKBP4"), ("FKBP4", "ARF5")}
    assert not reference.names_regulators


def test_links_of_string_with_names_need_no_other_file(tmp_path):
    text = "protein1 protein2 combined_score\nARF5 M6PR 490\n"
    assert edges_of(read_reference(written(tmp_path, text, "links.txt"))) == {("ARF5", "M6PR"), ("M6PR", "ARF5")}


def test_links_and_names_of_other_releases_are_refused(tmp_path):
    written(tmp_path, INFO.replace("9606.", "10090."), "10090.protein.info.txt")
    with pytest.raises(UserError, match=r"none of its proteins is in protein\.info"):
        read_reference(written(tmp_path, LINKS, "9606.protein.links.txt"))


def test_targets_of_chip_atlas_are_edges_from_the_protein(tmp_path):
    reference = read_reference(written(tmp_path, CHIP.format("STAT1"), "STAT1.5.tsv"))
    assert edges_of(reference) == {("STAT1", "IRF1")}
    assert reference.names_regulators
    assert reference.dropped_self == 1


def test_a_folder_is_its_network_or_its_chip_atlas_tables(tmp_path):
    chip, beeline = tmp_path / "chip", tmp_path / "GSD"
    for folder in (chip, beeline, tmp_path / "empty"):
        folder.mkdir()
    for protein in ("STAT1", "GATA1"):
        written(chip, CHIP.format(protein), f"{protein}.5.tsv")
    assert edges_of(read_reference(chip)) == {("STAT1", "IRF1"), ("GATA1", "IRF1")}
    written(beeline, "Gene1,Gene2,Type\nA,B,+\n", "refNetwork.csv")
    assert edges_of(read_reference(beeline)) == {("A", "B")}
    written(tmp_path / "empty", "gene\tvalue\nA\t1\n", "other.tsv")
    with pytest.raises(UserError, match="empty is a directory without GroundTruthNetwork"):
        read_reference(tmp_path / "empty")


@pytest.mark.parametrize(
    ("where", "name", "directed"),
    [
        ("trrust.tsv", "trrust", True),
        ("undirected:trrust.tsv", "trrust", False),
        ("pairs.csv", "pairs", False),
        ("directed:pairs.csv", "pairs", True),
        ("STRING/BL--network.csv", "STRING", True),
        ("STRING", "STRING", True),
    ],
)
def test_a_reference_has_a_short_name_and_may_be_said_to_have_directions(tmp_path, monkeypatch, where, name, directed):
    monkeypatch.chdir(tmp_path)
    Path("STRING").mkdir()
    written(Path("STRING"), "Gene1,Gene2\nA,B\n", "BL--network.csv")
    written(Path("STRING"), "Gene1,Gene2\nA,B\n", "refNetwork.csv")
    written(Path(), "A\tB\tActivation\t12\n", "trrust.tsv")
    written(Path(), "gene_a,gene_b\nA,B\n", "pairs.csv")
    found = named_reference(where)
    assert (found[0], found[1].names_regulators) == (name, directed)


def test_ligands_and_receptors_have_no_direction(data_dir):
    reference = read_reference(data_dir / "reference_networks" / "celltalkdb_human_lr_pair.csv")
    assert (len(reference), reference.names_regulators) == (3398, False)
