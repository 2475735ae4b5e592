import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grndist.networks.compare import jaccard_at, overlap_at, spearman, top
from grndist.networks.edges import EdgeList, edge_list


def of(weights: dict[str, float]) -> EdgeList:
    """An edge list from {"ab": weight of a -> b}."""
    return edge_list([pair[0] for pair in weights], [pair[1] for pair in weights], list(weights.values()))


A = of({"ab": 4.0, "ac": -3.0, "bc": 2.0, "ca": 1.0})
B = of({"ac": 9.0, "ba": 8.0, "ab": -7.0, "cb": 6.0})


def test_worked_by_hand():
    # 2 strongest: ab, ac and ac, ba; 3: ab, ac, bc and ac, ba, ab; 4: all
    assert [overlap_at(A, B, k) for k in (1, 2, 3, 4)] == [0, 1 / 2, 2 / 3, 2 / 4]
    assert [jaccard_at(A, B, k) for k in (1, 2, 3, 4)] == [0, 1 / 3, 2 / 4, 2 / 6]


def test_the_signed_rank_correlation_worked_by_hand():
    # edges         ab  ac  bc  ca  ba  cb
    # weights of A   4  -3   2   1   0   0   ranks 6 1 5 4 2.5 2.5
    # weights of B  -7   9   0   0   8   6   ranks 1 6 2.5 2.5 5 4
    ours, theirs = np.array([6, 1, 5, 4, 2.5, 2.5]), np.array([1, 6, 2.5, 2.5, 5, 4])
    ours, theirs = ours - 3.5, theirs - 3.5
    expected = (ours * theirs).sum() / math.sqrt((ours**2).sum() * (theirs**2).sum())
    assert spearman(A, B) == pytest.approx(expected, abs=1e-15)
    assert spearman(A, B) < -0.8  # both ways of weighing ab and ac are opposite


def test_an_edge_the_other_way_round_is_another_one():
    one, other = of({"ab": 1.0, "cd": 0.5}), of({"ba": 1.0, "dc": 0.5})
    assert overlap_at(one, other, 2) == jaccard_at(one, other, 2) == 0


def test_edges_tied_with_the_last_one_count_and_order_decides_nothing():
    tied = of({"ab": 2.0, "ac": -1.0, "bc": 1.0, "ca": 1.0})
    assert len(top(tied, 1)) == 1
    assert len(top(tied, 2)) == len(top(tied, 4)) == len(top(tied, 9)) == 4
    strict = of({"ab": 4.0, "ca": 3.0, "xy": 2.0})
    assert overlap_at(tied, strict, 2) == 2 / 4
    assert jaccard_at(tied, strict, 2) == 2 / 4
    assert overlap_at(tied, tied, 2) == 1


def test_an_edge_of_weight_0_is_none():
    assert list(top(of({"ab": 1.0, "bc": 0.0}), 5)) == [("a", "b")]
    nothing = of({"ab": 0.0})
    assert (overlap_at(nothing, nothing, 3), jaccard_at(nothing, nothing, 3)) == (0, 0)


def test_weights_that_are_all_the_same_have_no_ranks():
    same = of({"ab": 1.0, "bc": 1.0})
    assert math.isnan(spearman(same, same))
    assert not math.isnan(spearman(same, A))


def test_k_is_at_least_1():
    with pytest.raises(ValueError, match="k is 0"):
        overlap_at(A, B, 0)


PAIRS = [x + y for x in "abcd" for y in "abcd" if x != y]
weights = st.dictionaries(st.sampled_from(PAIRS), st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 3.0]), min_size=1)


@given(weights, weights, st.integers(1, 14))
def test_properties(one: dict[str, float], other: dict[str, float], k: int):
    a, b = of(one), of(other)
    share, jaccard = overlap_at(a, b, k), jaccard_at(a, b, k)
    assert 0 <= jaccard <= share <= 1
    assert (share, jaccard) == (overlap_at(b, a, k), jaccard_at(b, a, k))
    assert (share == 1) == (jaccard == 1) == (set(top(a, k)) == set(top(b, k)))
    union = sorted(one.keys() | other.keys())
    x, y = (np.array([found.get(pair, 0.0) for pair in union]) for found in (one, other))
    if np.ptp(x) and np.ptp(y):
        assert spearman(a, b) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    else:
        assert math.isnan(spearman(a, b))


def test_many_edges_agree_with_scipy_and_with_sets():
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(60)]
    dense = rng.normal(size=(2, 60, 60)).round(1)  # with ties
    dense[:, np.arange(60), np.arange(60)] = 0
    lists = []
    for matrix in dense:
        row, column = np.nonzero(matrix)
        lists.append(edge_list(np.array(names)[row], np.array(names)[column], matrix[row, column]))
    listed = (dense != 0).any(axis=0)
    assert spearman(*lists) == pytest.approx(stats.spearmanr(dense[0][listed], dense[1][listed]).statistic, abs=1e-12)
    for k in (1, 10, 500, 5000):
        tops = []
        for found in lists:
            table = found.table.assign(strength=found.table["weight"].abs())
            table = table[table["strength"] >= table["strength"].nlargest(k).min()]
            tops.append(set(zip(table["regulator"], table["target"], strict=True)))
        assert jaccard_at(*lists, k) == len(tops[0] & tops[1]) / len(tops[0] | tops[1])
