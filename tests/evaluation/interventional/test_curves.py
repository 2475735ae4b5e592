import numpy as np
import pandas as pd
import pytest

from grndist.data.store import Store
from grndist.data.view import whole
from grndist.errors import UserError
from grndist.evaluation.interventional import (
    CellEffects,
    OmissionConfig,
    at,
    band,
    curve,
    effects_of,
    mean_wasserstein,
    omissions,
    paths,
    rank_sum_precision,
    score_edges,
)
from grndist.networks.edges import EdgeList, edge_list
from tests.evaluation.interventional.test_score_edges import NAMES, network

OMISSION = OmissionConfig(pairs=4, max_path_length=2)


def test_every_row_is_of_the_first_k_testable_edges(store: Store):
    view, edges = whole(store), network(["g1", "g3", "g5"], NAMES)
    scored = score_edges(view, edges)
    testable = scored[scored["n"] > 0].reset_index(drop=True)
    found = curve(view, edges, [20, 3, 8, 3], omission=OMISSION)
    assert found["K"].tolist() == [3, 8, 20]
    for row in found.itertuples():
        assert row.mean_wasserstein == pytest.approx(mean_wasserstein(scored, row.K), rel=1e-15)
        assert row.rank_sum_precision == rank_sum_precision(scored, row.K)
        assert row.untestable == (scored["n"] == 0).to_numpy()[: np.flatnonzero(scored["n"])[row.K - 1]].sum()
        closure = paths(testable.head(row.K), 2)
        left = omissions(CellEffects(view), [closure], OMISSION)[0]
        assert (row.false_omission_rate, row.omitted_pairs, row.left_out) == (left.rate, left.pairs, left.left_out)
    pd.testing.assert_frame_equal(curve(effects_of(view), edges, [3, 8, 20], omission=OMISSION), found)


def test_a_k_that_the_network_does_not_reach_has_no_numbers_and_says_why(store: Store):
    found = curve(whole(store), network(["g1", "g5"], NAMES), [11, 12], omission=OMISSION)
    assert found["mean_wasserstein"].notna().tolist() == [True, False]
    assert found["reason"].tolist() == ["", "only 11 of the network's 22 edges are testable"]
    assert at(found, 11)["K"] == 11
    with pytest.raises(UserError, match="at 12 edges: only 11 of the network's 22 edges are testable"):
        at(found, 12)
    with pytest.raises(UserError, match=r"not made at 1,000 edges, but at \[11, 12\]"):
        at(found)


def test_an_empty_network_and_one_of_self_edges_have_rows_that_say_so(store: Store):
    own = EdgeList(pd.DataFrame({"regulator": ["g1"], "target": ["g1"], "weight": [1.0]}))
    for edges in (edge_list([], [], []), own):
        found = curve(whole(store), edges, [5, 10])
        assert found["false_omission_rate"].isna().all()
        assert found["reason"].tolist() == ["the network has no edge"] * 2


def test_a_network_that_leaves_out_nothing_has_no_omission_rate(store: Store):
    edges = network(["g1", "g3", "elsewhere"], NAMES)
    found = at(curve(whole(store), edges, [34]), 34)
    assert np.isnan(found["false_omission_rate"])
    assert found["mean_wasserstein"] > 0
    assert "no testable pair is left out" in found["reason"]


def test_a_band_has_mean_and_deviation_of_the_seeds_that_reach_each_k(store: Store):
    view = whole(store)
    curves = [curve(view, network(["g1", "g3"], NAMES, seed), [5, 10], omission=OMISSION) for seed in range(3)]
    curves.append(curve(view, network(["g1"], NAMES[:7]), [5, 10], omission=OMISSION))
    found = band(curves)
    assert found["seeds"].tolist() == [4, 3]
    for measure in ("mean_wasserstein", "rank_sum_precision", "false_omission_rate"):
        values = [one[measure][1] for one in curves[:3]]
        assert found[measure][1] == pytest.approx(np.mean(values))
        assert found[f"{measure}_sd"][1] == pytest.approx(np.std(values, ddof=1))
    assert band(curves[:1])["mean_wasserstein_sd"].tolist() == [0, 0]
    assert at(found, 10)["seeds"] == 3
