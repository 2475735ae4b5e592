import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.errors import UserError
from grndist.evaluation.evaluate import Expression, evaluate
from grndist.evaluation.references import Reference, read_reference
from grndist.networks.edges import EdgeList, edge_list
from grndist.networks.io import read_edges, write_edges
from grndist.seeds import stream

GENES = tuple("ABCDEFGH")
TRUE = [("A", "B"), ("A", "C"), ("B", "A"), ("B", "D"), ("E", "A")]


def reference(pairs=TRUE, signs=None, names_regulators=True) -> Reference:
    table = pd.DataFrame(pairs, columns=["regulator", "target"])
    if signs is not None:
        table["sign"] = np.int8(signs)
    return Reference(table, names_regulators, Path("net.csv"))


def complete(score=None, genes=GENES, signed=False) -> EdgeList:
    """Every ordered pair of `genes`, weighed by `score` or at random."""
    pairs = list(permutations(genes, 2))
    rng = stream(3, "test-network")
    weights = rng.normal(size=len(pairs)) if score is None else [score(*pair) for pair in pairs]
    return edge_list(*zip(*pairs, strict=True), np.array(weights, dtype=float), genes=genes, signed=signed)


def row(scores, method="network", lineage="DAZZLE") -> pd.Series:
    table = scores.table
    return table[(table["method"] == method) & (table["lineage"] == lineage)].iloc[0]


def shuffled(edges: EdgeList, seed: int) -> EdgeList:
    order = stream(seed, "test-shuffle").permutation(len(edges))
    return EdgeList(edges.table.iloc[order].reset_index(drop=True), edges.genes, edges.signed)


def brute_force(edges: EdgeList, universe: set, true: set) -> dict[str, float]:
    """Both lineages' EPR by dictionaries and sorting."""
    weight = {(r, t): abs(w) for r, t, w in edges.table.itertuples(index=False)}
    score = {pair: weight.get(pair, 0.0) for pair in universe}
    k, kth = len(true), sorted(score.values(), reverse=True)[len(true) - 1]
    above = {pair for pair in universe if score[pair] > kth}
    upto = {pair for pair in universe if score[pair] >= kth and score[pair] > 0}
    chance = k / len(universe)
    return {"DAZZLE": len(above & true) / (k**2 / len(universe)), "BEELINE": len(upto & true) / len(upto) / chance}


@pytest.mark.parametrize("all_pairs", [False, True])
def test_scores_are_those_of_a_brute_force_count(all_pairs):
    edges = complete()
    scores = evaluate(edges, reference(), None, all_pairs, seed=0)
    genes = set("ABCDE")
    tf_x_genes = {(r, t) for r in "ABE" for t in genes if r != t}
    universe = set(permutations(genes, 2)) if all_pairs else tf_x_genes
    assert row(scores)["EPR"] == pytest.approx(brute_force(edges, tf_x_genes, set(TRUE))["DAZZLE"])
    found = row(scores, lineage="BEELINE")
    assert found["EPR"] == pytest.approx(brute_force(edges, universe, set(TRUE))["BEELINE"])
    assert (found["k"], found["candidates"], found["covered"]) == (5, len(universe), 1)
    assert found["universe"] == ("all pairs" if all_pairs else "TF x genes")


def test_a_reference_that_names_no_regulators_is_scored_over_all_pairs():
    scores = evaluate(complete(), reference(names_regulators=False), None, all_pairs=False, seed=0)
    assert row(scores, lineage="BEELINE")["candidates"] == 20
    assert row(scores, lineage="DAZZLE")["candidates"] == 12


def test_a_perfect_network_beats_chance_and_direction_counts():
    perfect = evaluate(complete(lambda r, t: 1 + 2 * ((r, t) in TRUE)), reference(), None, False, seed=0)
    assert row(perfect, lineage="BEELINE")["EPR"] == pytest.approx(12 / 5)
    assert row(perfect, lineage="BEELINE")["AUPRC"] == pytest.approx(1)
    turned = evaluate(complete(lambda r, t: 1 + 2 * ((t, r) in TRUE)), reference(), None, False, seed=0)
    assert row(turned, lineage="BEELINE")["AUPRC"] < 0.8


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), power=st.sampled_from([0.5, 1, 3]))
def test_row_order_and_monotone_transforms_never_change_a_score(seed, power):
    edges = complete(lambda r, t: (ord(r) * 7 + ord(t) * 3) % 5)
    table = edges.table.assign(weight=edges.table["weight"] ** power)
    moved = shuffled(EdgeList(table, edges.genes), seed)
    scores = [evaluate(e, reference(), None, False, seed=0).table for e in (edges, moved)]
    pd.testing.assert_frame_equal(*scores, check_exact=True)


def test_the_panel_is_the_expressions_genes_then_the_lists_panel_then_its_names():
    expression = Expression(tuple("ABCD"), lambda: [np.eye(4, dtype=np.float32)])
    edges = complete()
    unknown_panel = EdgeList(edges.table, ())
    smaller_panel = EdgeList(edges.table[edges.table["regulator"].isin(list("ABC"))], tuple("ABC"))
    panels = [
        evaluate(edges, reference(), expression, False, seed=0).counts,
        evaluate(edges, reference(), None, False, seed=0).counts,
        evaluate(unknown_panel, reference(), None, False, seed=0).counts,
        evaluate(smaller_panel, reference(), None, False, seed=0).counts,
    ]
    assert [(counts.panel_genes, counts.outside_panel) for counts in panels] == [(4, 1), (8, 0), (8, 0), (3, 2)]


@pytest.mark.parametrize("ending", ["parquet", "tsv"])
def test_regulators_outside_the_panel_are_scored_whatever_the_file(tmp_path: Path, ending: str):
    """E was perturbed and not measured."""
    table = complete().table
    listed = table[table["target"] != "E"].reset_index(drop=True)
    write_edges(EdgeList(listed, tuple("ABCDFGH")), tmp_path / f"edges.{ending}")
    scores = evaluate(read_edges(tmp_path / f"edges.{ending}"), reference(), None, False, seed=0)
    assert (scores.counts.panel_genes, scores.counts.outside_panel) == (8, 0)
    assert row(scores, lineage="BEELINE")["candidates"] == 12
    known = evaluate(EdgeList(listed, GENES), reference(), None, False, seed=0)
    pd.testing.assert_frame_equal(scores.table, known.table)


def test_a_regulator_with_no_edge_left_in_the_panel_is_a_candidate_for_dazzle_alone():
    scores = evaluate(complete(), reference([*TRUE, ("F", "not here"), ("not here", "G")]), None, False, seed=0)
    assert scores.counts.outside_panel == 2
    assert row(scores, lineage="DAZZLE")["candidates"] == 4 * 7 - 4  # A B E F x A-G
    assert row(scores, lineage="BEELINE")["candidates"] == 3 * 5 - 3  # A B E x A-E


def test_missing_candidates_score_zero_and_coverage_says_so():
    edges = complete()
    candidates = [(r, t) for r in "ABE" for t in "ABCDE" if r != t]
    table = edges.table.set_index(["regulator", "target"]).loc[candidates].reset_index()
    top = table.sort_values("weight", key=abs, ascending=False, ignore_index=True)
    cut = evaluate(EdgeList(top.head(6), edges.genes), reference(), None, False, seed=0)
    zeros = top.assign(weight=top["weight"].where(top.index < 6, 0.0))
    padded = evaluate(EdgeList(zeros, edges.genes), reference(), None, False, seed=0)
    assert row(cut)["covered"] == 6 / 12
    columns = ["EPR", "AUPRC", "AUPRC ratio"]
    pd.testing.assert_frame_equal(cut.table[columns], padded.table[columns])


def test_correlation_is_scored_beside_the_network_and_chance():
    x = stream(5, "test-cells").normal(size=(50, len(GENES))).astype(np.float32)
    expression = Expression(GENES, lambda: np.array_split(x, 4))
    correlation = np.abs(np.corrcoef(x.T)).round(12)  # the same bits for (i, j) and (j, i)
    twin = complete(lambda r, t: correlation[GENES.index(r), GENES.index(t)])
    scores = evaluate(twin, reference(), expression, False, seed=0)
    assert scores.table["method"].tolist() == 2 * ["network", "random", "absolute correlation"]
    for lineage in ["DAZZLE", "BEELINE"]:
        network, baseline = row(scores, "network", lineage), row(scores, "absolute correlation", lineage)
        assert network["AUPRC"] == pytest.approx(baseline["AUPRC"])


def test_chance_is_a_ratio_of_one_and_moves_with_the_seed():
    pairs = [(f"g{i}", f"g{j}") for i in range(30) for j in range(60) if i != j and (7 * i + j) % 11 == 0]
    edges = complete(lambda r, t: len(r + t), genes=tuple(f"g{i}" for i in range(60)))
    scores = [evaluate(edges, reference(pairs), None, False, seed) for seed in (0, 0, 1)]
    for lineage in ["DAZZLE", "BEELINE"]:
        chance = [row(found, "random", lineage)["EPR"] for found in scores]
        assert chance[0] == chance[1] != chance[2]
        assert chance[0] == pytest.approx(1, abs=0.25)
        assert row(scores[0], "random", lineage)["AUPRC ratio"] == pytest.approx(1, abs=0.15)


def test_signs_are_compared_among_the_true_edges_in_the_top():
    sign = {("A", "B"): 1, ("A", "C"): -1, ("B", "A"): 1, ("B", "D"): 0, ("E", "A"): -1}
    known = reference(list(sign), list(sign.values()))
    edges = complete(lambda r, t: 5.0 if (r, t) in sign else -0.1, signed=True)
    found = evaluate(edges, known, None, False, seed=0)
    assert row(found, lineage="BEELINE")["sign agreement"] == 2 / 4  # B -> D has no known sign
    assert np.isnan(row(found, lineage="DAZZLE")["sign agreement"])  # nothing is strictly above the tie
    assert np.isnan(row(found, "random", "BEELINE")["sign agreement"])
    unsigned = complete(lambda r, t: 5.0 if (r, t) in sign else 0.1)
    assert "sign agreement" not in evaluate(unsigned, known, None, False, seed=0).table


def test_scores_are_written_whole_and_never_over_a_file(tmp_path):
    known = reference(signs=[1, 1, 1, 1, 1])
    scores = evaluate(complete(signed=True), known, None, False, seed=4)
    path = tmp_path / "scores.json"
    scores.write(path)
    stored = json.loads(path.read_text())
    assert stored["reference"] == "net.csv"
    assert (stored["seed"], stored["reference_edges"], stored["outside_panel"]) == (4, 5, 0)
    assert stored["scores"][0]["EPR"] == row(scores)["EPR"]
    assert stored["scores"][1]["sign agreement"] is None
    with pytest.raises(UserError, match="--overwrite"):
        scores.write(path)
    scores.write(path, overwrite=True)
    with pytest.raises(UserError, match=r"ends in \.json"):
        scores.write(tmp_path / "scores.tsv")


def test_the_rendered_table_shows_every_row():
    text = evaluate(complete(), reference(), None, False, seed=0).render(width=140)
    assert "net.csv: 5 of 5 edges have both genes in the panel of 8" in text
    assert text.count("DAZZLE") == text.count("BEELINE") == 3  # what is ranked, and two rows
    assert "AUPRC ratio" in text


def test_a_list_shorter_than_k_is_refused_with_both_numbers():
    listed = edge_list(["A", "A", "C", "F"], ["B", "C", "A", "G"], [4.0, 3.0, 2.0, 1.0], genes=GENES)
    with pytest.raises(UserError, match=r"has 2 of the 12 candidate edges .* 5 are true .* infer RUN --all"):
        evaluate(listed, reference(), None, False, seed=0)


def test_no_common_gene_is_refused_with_three_names_of_each():
    mouse = reference([("Aa", "Bb"), ("Cc", "Dd")])
    with pytest.raises(UserError, match=r"'Aa', 'Bb', 'Cc', .*'A', 'B', 'C', .*identifiers"):
        evaluate(complete(), mouse, None, False, seed=0)


def test_no_edge_in_the_panel_is_refused():
    with pytest.raises(UserError, match=r"net\.csv: none of its 2 edges has both genes among the 8"):
        evaluate(complete(), reference([("A", "x"), ("y", "B")]), None, False, seed=0)


def test_a_complete_reference_is_refused():
    with pytest.raises(UserError, match="is complete: all 6 candidate edges"):
        evaluate(complete(), reference(list(permutations("ABC", 2))), None, False, seed=0)


@pytest.mark.parametrize(
    ("network", "dazzle", "beeline_all_pairs"),
    [
        ("STRING", (4815, 128_304, 1.461, 1.10), (236_682, 0.031)),
        ("Specific", (756, 8_940, 1.24, 1.08), (200_256, 0)),
        ("Non-Specific", (3067, 160_500, 1.06, 0.94), (412_806, 0)),
    ],
)
def test_correlation_on_mdc_scores_what_is_known(data_dir, network, dazzle, beeline_all_pairs):
    """(k, candidates, EPR, AUPRC ratio) of DAZZLE's own evaluation, (candidates, EPR) of BEELINE's, on mDC TFs+500."""
    folder = data_dir / "beeline_mDC_TFs500"
    table = pd.read_csv(folder / "ExpressionData.csv", index_col=0)
    x, genes = table.to_numpy(np.float32).T, tuple(table.index)
    known = read_reference(folder / network / "BL--network.csv")
    known_genes = [gene for gene in genes if gene in {*known.table["regulator"], *known.table["target"]}]
    edges = complete(lambda r, t: 1.0, genes=tuple(known_genes))
    expression = Expression(genes, lambda: np.array_split(x, 3))

    scores = evaluate(edges, known, expression, all_pairs=True, seed=0)

    found = row(scores, "absolute correlation", "DAZZLE")
    assert found[["k", "candidates"]].tolist() == list(dazzle[:2])
    assert found[["EPR", "AUPRC ratio"]].tolist() == pytest.approx(dazzle[2:], abs=0.005)
    over_all = row(scores, "absolute correlation", "BEELINE")
    assert over_all["candidates"] == beeline_all_pairs[0]
    assert over_all["EPR"] == pytest.approx(beeline_all_pairs[1], abs=0.001)


def test_hesc_candidates_have_the_published_size(data_dir):
    known = read_reference(data_dir / "reference_networks" / "hESC_TFs500" / "TFs+500" / "BL--network.csv")
    names = sorted({*known.table["regulator"], *known.table["target"]})
    scores = evaluate(complete(lambda r, t: 1.0, genes=tuple(names)), known, None, False, seed=0)
    for lineage in ["DAZZLE", "BEELINE"]:
        assert row(scores, lineage=lineage)[["k", "candidates"]].tolist() == [4257, 176_988]
