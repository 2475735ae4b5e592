import json

import numpy as np
import pandas as pd
import pytest

from grndist.errors import UserError
from grndist.evaluation.board import COLUMNS, TOP
from grndist.evaluation.evaluate import Expression, evaluate
from grndist.evaluation.many import Named, ScoringConfig, score_many, short_names
from grndist.networks.edges import EdgeList
from grndist.seeds import stream
from tests.evaluation.test_evaluate import GENES, TRUE, complete, reference

SIGNS = [1, -1, 1, 1, -1]


def drawn(seed: int) -> EdgeList:
    rng = stream(seed, "test-many")
    return complete(lambda r, t: rng.normal(), signed=True)


def expression() -> Expression:
    x = stream(5, "test-cells").normal(size=(50, len(GENES))).astype(np.float32)
    return Expression(GENES, lambda: np.array_split(x, 4))


def board(**settings):
    networks = [Named("first", drawn(0), "a/first.tsv"), Named("second", drawn(1), "b/second.tsv")]
    references = {"signed": reference(signs=SIGNS), "pairs": reference(names_regulators=False)}
    return score_many(networks, references, expression(), ScoringConfig(top=6, **settings), replicates=True)


def test_every_network_is_scored_against_every_reference_as_alone():
    found = board(seed=3)
    table = found.table
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 2 * 3 * (2 + 2)  # references x lineages x (networks + baselines)
    for name, seed in (("first", 0), ("second", 1)):
        alone = evaluate(drawn(seed), reference(signs=SIGNS), expression(), False, 3).table
        for lineage in ("DAZZLE", "BEELINE"):
            mine = table[(table["reference"] == "signed") & (table["lineage"] == lineage)].set_index("network")
            its = alone[alone["lineage"] == lineage].set_index("method").rename(index={"network": name})
            shared = [column for column in its.columns if column in mine.columns and column != "covered"]
            for row in its.index:
                ours, expected = mine.loc[row, shared], its.loc[row, shared]
                assert [x for x in ours if pd.notna(x)] == [x for x in expected if pd.notna(x)], (row, lineage)
    top = table[table["lineage"] == TOP]
    assert top["directed"].tolist() == [True] * 4 + [False] * 4
    assert set(top["edges"]) == {6}


@pytest.mark.parametrize(("measures", "lineages"), [("top", {TOP}), ("ranking", {"DAZZLE", "BEELINE"})])
def test_measures_are_chosen(measures, lineages):
    assert set(board(measures=measures).table["lineage"]) == lineages


@pytest.mark.parametrize(("candidates", "universes"), [("all", [20, 20]), ("tf", [12, 12]), ("auto", [12, 20])])
def test_the_candidates_of_beeline_are_chosen(candidates, universes):
    table = board(candidates=candidates).table
    own = table[(table["network"] == "first") & (table["lineage"] == "BEELINE")]
    assert own["candidates"].tolist() == universes


def test_networks_over_other_genes_have_baselines_of_their_own():
    smaller = complete(genes=tuple("ABCDE"))
    networks = [Named("all", complete(), "all"), Named("few", smaller, "few")]
    table = score_many(networks, {"r": reference()}, None, ScoringConfig(measures="top")).table
    random = table[table["baseline"]]
    assert random["panel genes"].tolist() == [8, 5]
    assert random["network"].tolist() == ["random", "random"]


def test_files_hold_the_table_and_its_columns(tmp_path):
    found = board()
    found.write_json(tmp_path / "s.json")
    found.write_parquet(tmp_path / "s.parquet")
    stored, table = json.loads((tmp_path / "s.json").read_text()), pd.read_parquet(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(table, found.table)
    assert stored["columns"] == COLUMNS
    assert stored["networks"] == {"first": "a/first.tsv", "second": "b/second.tsv"}
    assert stored["references"]["pairs"]["reference_edges"] == len(TRUE)
    assert [row["EPR"] for row in stored["scores"]] == [None if pd.isna(x) else x for x in found.table["EPR"]]
    assert stored["stability"]["jaccard"] == found.stability.jaccard
    assert stored["stability"]["jaccard_sd"] is None
    with pytest.raises(UserError, match="--overwrite"):
        found.write_json(tmp_path / "s.json")


def test_numbers_to_track_name_reference_and_lineage():
    found = board()
    flat = found.flat("second")
    own = found.table[(found.table["network"] == "second") & (found.table["reference"] == "pairs")]
    assert flat["pairs DAZZLE EPR"] == own[own["lineage"] == "DAZZLE"]["EPR"].item()
    assert flat["pairs F1 at 6"] == own[own["lineage"] == TOP]["F1"].item()
    assert "signed BEELINE EPR activation" in flat
    assert "pairs BEELINE EPR activation" not in flat
    assert all(np.isfinite(value) for value in flat.values())


def test_the_text_has_every_network_and_says_how_replicates_agree():
    text = board().render()
    assert text.count("first") == text.count("second") == 6
    assert "replicates, 1 pairs: Jaccard index of the top 6" in text


def test_names_are_short_and_differ():
    places = ["runs/a/edges.parquet", "x/net.tsv", "y/net.tsv", "models:/grn@champion", "b.csv.gz", "o/rankedEdges.csv"]
    assert short_names(places) == ["a", "x/net.tsv", "y/net.tsv", "grn@champion", "b", "o"]
    with pytest.raises(UserError, match=r"b\.tsv is given twice"):
        short_names(["b.tsv", "a.tsv", "b.tsv"])


def test_the_one_network_that_cannot_be_scored_is_named():
    foreign = complete(genes=("x", "y", "z"))
    networks = [Named("good", complete(), "good.tsv"), Named("bad", foreign, "bad.tsv")]
    with pytest.raises(UserError, match=r"net\.csv shares no gene with bad\.tsv"):
        score_many(networks, {"r": reference()}, None, ScoringConfig())
    replicates = [networks[0], Named("other", complete(), "other.tsv")]
    with pytest.raises(UserError, match=r"good\.tsv has 56 edges, but the top 57"):
        score_many(replicates, {"r": reference()}, None, ScoringConfig(top=57), replicates=True)
    short = EdgeList(complete().table.head(3), GENES)
    with pytest.raises(UserError, match=r"short\.tsv has \d of the 12 .*--measures top"):
        score_many([Named("short", short, "short.tsv")], {"r": reference()}, None, ScoringConfig())
