"""The statistical evaluation of CausalBench: where the published one breaks here, and where it does not next door."""

import numpy as np
import pandas as pd
import pytest

from grndist.data.store import Store
from grndist.data.view import whole
from grndist.evaluation.interventional import CellEffects, effects_of, evaluate_network
from grndist.networks.edges import EdgeList, edge_list
from tests.evaluation.interventional.test_score_edges import NAMES, network


def listed(pairs: list[tuple[str, str]]) -> EdgeList:
    return EdgeList(pd.DataFrame(pairs, columns=["regulator", "target"], dtype=object).assign(weight=1.0))


def test_an_atlas_gives_what_the_cells_give(store: Store):
    edges = listed([("g1", "g3"), ("g3", "g5"), ("g1", "g2")])
    found = evaluate_network(effects_of(whole(store)), edges, 4, 10, seed=3)
    assert found == evaluate_network(CellEffects(whole(store)), edges, 4, 10, seed=3)
    assert found["omitted_pairs"] == 10
    assert [sum((one["true_positives"], one["false_positives"])) for one in found["all_path_results"]] == [1]


def test_self_edges_and_untestable_edges_are_counted_and_not_scored(store: Store):
    atlas = effects_of(whole(store))
    plain = evaluate_network(atlas, listed([("g1", "g5")]))
    odd = evaluate_network(atlas, listed([("g1", "g1"), ("g5", "g2"), ("g1", "g5"), ("g1", "unmeasured")]))
    assert odd["output_graph"] == plain["output_graph"]
    assert (odd["self_edges"], odd["untestable"]) == (1, 2)
    assert (plain["self_edges"], plain["untestable"]) == (0, 0)


def test_a_complete_network_ends_without_a_rate(store: Store):
    found = evaluate_network(effects_of(whole(store)), network(["g1", "g3", "elsewhere"], NAMES), omission_pairs=5)
    assert np.isnan(found["false_omission_rate"])
    assert found["output_graph"]["true_positives"] + found["output_graph"]["false_positives"] == 34
    assert "no testable pair is left out" in found["reasons"][0]


def test_an_empty_network_has_no_positives_and_a_rate_of_all_pairs(store: Store):
    found = evaluate_network(effects_of(whole(store)), edge_list([], [], []), omission_pairs=1000)
    assert (found["output_graph"]["true_positives"], found["output_graph"]["false_positives"]) == (0, 0)
    assert np.isnan(found["output_graph"]["wasserstein_distance"]["mean"])
    assert found["reasons"] == ["the mean distance: the network has no edge"]
    assert found["omitted_pairs"] == 34
    assert found["false_omission_rate"] > 0


def test_without_pairs_to_draw_the_rate_is_the_benchmarks_minus_one(store: Store):
    found = evaluate_network(effects_of(whole(store)), listed([("g1", "g5")]))
    assert (found["false_omission_rate"], found["negative_mean_wasserstein"]) == (-1, -1)
    assert found["reasons"] == []


@pytest.mark.parametrize(("lengths", "with_path"), [("causalbench", 4 + 4), ("true", 3 + 3)])
def test_length_three_of_the_benchmark_is_four_edges(store: Store, lengths: str, with_path: int):
    chain = listed([("g1", "g3"), ("g3", "g4"), ("g4", "g6"), ("g6", "g7"), ("g7", "g8")])  # g1 and g3 are perturbed
    found = evaluate_network(effects_of(whole(store)), chain, 3, 1000, lengths=lengths)
    assert found["omitted_pairs"] == 34 - with_path
