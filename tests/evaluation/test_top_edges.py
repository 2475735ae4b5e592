from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.evaluation.top_edges import chance, strongest_pairs, top_edges
from grndist.networks.edges import EdgeList, edge_list

GENES = "ABCDE"
PAIRS = list(permutations(GENES, 2))


def known(pairs) -> pd.DataFrame:
    return pd.DataFrame(list(pairs), columns=["regulator", "target"], dtype=object)


def network(weights) -> EdgeList:
    return edge_list(*zip(*PAIRS, strict=True), np.array(weights, dtype=float))


def as_causalbench_counts(edges: list, database: set, is_directed: bool) -> float:
    """Of a network without weights: both ways round, hits halved, where the database has no directions."""
    if is_directed:
        return len(set(edges) & database)
    both_ways = set(edges) | {(b, a) for a, b in edges}
    return len(both_ways & (database | {(b, a) for a, b in database})) / 2


@given(
    weights=st.lists(st.integers(0, 4), min_size=20, max_size=20),
    database=st.sets(st.sampled_from(PAIRS), min_size=1),
    k=st.integers(1, 25),
    is_directed=st.booleans(),
)
def test_true_positives_are_causalbenchs_and_the_rest_follows(weights, database, k, is_directed):
    edges = network(weights)
    listed = [pair for *pair, weight in edges.table.itertuples(index=False, name=None) if weight]
    taken: dict = {}
    for pair in map(tuple, listed):
        taken.setdefault(pair if is_directed else frozenset(pair), pair)
    compared = list(taken.values())[:k]
    real = database if is_directed else {frozenset(pair) for pair in database}

    found = top_edges(edges, known(database), set(GENES), k, is_directed)

    hits = as_causalbench_counts(compared, database, is_directed)
    assert found["true positives"] == hits
    assert (found["edges"], found["k"]) == (len(compared), len(real))
    assert found["candidates"] == (20 if is_directed else 10)
    assert found["recall"] == hits / len(real)
    if compared:
        assert found["precision"] == hits / len(compared)
        assert found["precision ratio"] == pytest.approx(hits / len(compared) / (len(real) / found["candidates"]))
        if hits:
            harmonic = 2 / (1 / found["precision"] + 1 / found["recall"])
            assert found["F1"] == pytest.approx(harmonic)
    else:
        assert np.isnan(found["precision"])


def test_genes_outside_the_panel_are_in_no_pair():
    edges = edge_list("ABX", "BXA", [3.0, 2.0, 1.0])
    found = top_edges(edges, known([("A", "B"), ("A", "X"), ("A", "A")]), set("ABC"), 10, True)
    assert (found["edges"], found["k"], found["true positives"], found["candidates"]) == (1, 1, 1, 6)


@pytest.mark.parametrize("is_directed", [True, False])
def test_chance_is_the_mean_over_every_pair_there_is(is_directed):
    database = known([("A", "B"), ("C", "B"), ("D", "E")])
    found = [top_edges(edge_list([r], [t], [1.0]), database, set(GENES), 1, is_directed) for r, t in PAIRS]
    single = chance(database, set(GENES), 1, is_directed)
    for measure in ("true positives", "precision", "recall", "F1", "precision ratio"):
        assert np.mean([one[measure] for one in found]) == pytest.approx(single[measure])
    assert chance(database, set(GENES), 4, is_directed)["true positives"] == pytest.approx(4 * single["true positives"])


def test_the_strongest_pairs_of_a_matrix_come_both_ways_round():
    matrix = pd.DataFrame([[1, 0.2, 0.9], [0.2, 1, 0.0], [0.9, 0.0, 1]], index=list("ABC"), columns=list("ABC"))
    assert strongest_pairs(matrix, 1).table.to_numpy().tolist() == [["A", "C", 0.9], ["C", "A", 0.9]]
    assert len(strongest_pairs(matrix, 50)) == 4  # B and C do not correlate
