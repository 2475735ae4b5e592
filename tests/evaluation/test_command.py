"""`grndist evaluate` of many networks, through the command line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from grndist.networks.edges import EdgeList
from grndist.networks.io import read_edges, write_edges
from tests.test_bad_input import refused_without_a_trace
from tests.test_cli import done

GENES = tuple(f"g{number}" for number in range(6))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two networks, one of them in a run directory, and two references."""
    monkeypatch.chdir(tmp_path)
    Path("runs/first").mkdir(parents=True)
    pairs = [(r, t, (i * 7 + j * 3) % 11 + 0.5) for i, r in enumerate(GENES) for j, t in enumerate(GENES) if r != t]
    table = pd.DataFrame(pairs, columns=["regulator", "target", "weight"])
    ranked = table.sort_values("weight", ascending=False, ignore_index=True)
    write_edges(EdgeList(ranked, GENES), Path("runs/first/edges.parquet"))
    write_edges(EdgeList(ranked.assign(weight=ranked["weight"].to_numpy()[::-1]), GENES), Path("second.tsv"))
    Path("trrust.tsv").write_text("g0\tg1\tActivation\t1\ng2\tg3\tRepression\t2\ng0\tg5\tUnknown\t3\n")
    Path("humanComplexes.txt").write_text("complex_id\tsubunits_gene_name\n1\tg0;g1;g2\n2\tg3;g4\n")
    return tmp_path


@pytest.mark.usefixtures("here")
def test_many_networks_and_references_end_in_one_table_and_one_figure():
    line = "evaluate runs/first second.tsv --reference trrust.tsv --reference humanComplexes.txt --top 5"
    printed = done(line)
    table, stored = pd.read_parquet("scores.parquet"), json.loads(Path("scores.json").read_text())
    assert set(table["network"]) == {"first", "second", "random"}
    assert table.groupby("reference")["directed"].first().to_dict() == {"humanComplexes": False, "trrust": True}
    assert stored["networks"] == {"first": "runs/first/edges.parquet", "second": "second.tsv"}
    assert len(stored["scores"]) == len(table) == 3 * 2 * 3
    assert Path("scores.png").read_bytes().startswith(b"\x89PNG")
    assert "next: look at scores.png" in printed
    refused_without_a_trace(line, "scores.json exists already", "--overwrite")
    done(f"{line} --overwrite --replicates")
    assert json.loads(Path("scores.json").read_text())["stability"]["pairs"] == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate runs/first nowhere.tsv --reference trrust.tsv", ("nowhere.tsv: no such file",)),
        ("evaluate runs/first second.tsv --reference trrust.tsv --reference no.csv", ("no.csv: no such file",)),
        ("evaluate runs second.tsv --reference trrust.tsv", ("runs is a directory without edges.parquet",)),
        ("evaluate second.tsv second.tsv --reference trrust.tsv", ("second.tsv is given twice",)),
        ("evaluate runs/first second.tsv --reference trrust.tsv -o s.txt", ("s.txt", "ends in .json")),
        ("evaluate second.tsv --reference trrust.tsv --measures best", ("measures", "'best'")),
        ("evaluate second.tsv --reference trrust.tsv --all-pairs --candidates tf", ("--candidates tf", "exclude")),
        ("evaluate second.tsv --reference trrust.tsv --replicates --top 3", ("there is 1; give two or more",)),
    ],
)
@pytest.mark.usefixtures("here")
def test_one_bad_input_among_many_is_one_message_and_leaves_no_trace(line: str, words: tuple[str, ...]):
    refused_without_a_trace(line, *words)


@pytest.mark.usefixtures("here")
def test_beelines_own_output_is_a_network():
    Path("PIDC").mkdir()
    write_edges(read_edges(Path("second.tsv")), Path("PIDC/rankedEdges.csv"))
    done("evaluate PIDC second.tsv --reference trrust.tsv --measures ranking -o both.json")
    table = pd.read_parquet("both.parquet").set_index("network")
    assert table.loc["PIDC", "EPR"].tolist() == table.loc["second", "EPR"].tolist()
