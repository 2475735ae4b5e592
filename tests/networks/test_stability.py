from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from grndist.errors import UserError
from grndist.networks.edges import EdgeList, edge_list
from grndist.networks.stability import agreement_with_others, jaccard, spearman, stability, top

GENES = tuple("ABCDEF")
PAIRS = list(permutations(GENES, 2))

weights = st.lists(st.integers(-3, 3).map(float), min_size=len(PAIRS), max_size=len(PAIRS))


def network(values: list[float], keep_zeros: bool = True) -> EdgeList:
    kept = [(pair, value) for pair, value in zip(PAIRS, values, strict=True) if keep_zeros or value]
    if not kept:
        return edge_list([], [], [], GENES, signed=True)
    pairs, found = zip(*kept, strict=True)
    return edge_list(*zip(*pairs, strict=True), found, GENES, signed=True)


def drawn(seed: int) -> EdgeList:
    return network(list(np.random.default_rng(seed).normal(size=len(PAIRS))))


@settings(max_examples=25)
@given(a=weights, b=weights, zeros=st.booleans())
def test_spearman_is_scipys_over_all_pairs_of_the_panel(a: list[float], b: list[float], zeros: bool):
    found = spearman(network(a, zeros), network(b, False))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_over_other_candidates():
    a, b = edge_list("AB", "BA", [3.0, -1.0]), edge_list("AC", "BB", [2.0, 1.0])
    assert spearman(a, b) == pytest.approx(spearmanr([3, -1, 0], [2, 0, 1]).statistic)
    assert spearman(a, b, candidates=6) == pytest.approx(spearmanr([3, -1, 0, 0, 0, 0], [2, 0, 1, 0, 0, 0]).statistic)
    outside = edge_list("Z", "A", [1.0], ("A", "B"))  # Z was perturbed and not measured: 2 + 2 candidates
    inside = edge_list("A", "B", [1.0], ("A", "B"))
    assert spearman(outside, inside) == pytest.approx(spearmanr([1, 0, 0, 0], [0, 1, 0, 0]).statistic)


@settings(max_examples=25)
@given(a=weights, b=weights, k=st.integers(1, 12))
def test_jaccard_is_that_of_sets_with_ties(a: list[float], b: list[float], k: int):
    def best(values: list[float]) -> set:
        least = sorted(map(abs, values), reverse=True)[k - 1]
        return {pair for pair, value in zip(PAIRS, values, strict=True) if value and abs(value) >= least}

    if min(np.count_nonzero(a), np.count_nonzero(b)) < k:
        with pytest.raises(UserError, match=f"the top {k} edges are to be compared, but a network has only"):
            jaccard(network(a), network(b), k)
    else:
        both, either = best(a) & best(b), best(a) | best(b)
        assert jaccard(network(a), network(b), k) == len(both) / len(either)


def test_the_top_has_all_edges_tied_with_the_kth():
    edges = edge_list("ABCD", "BCDA", [2.0, -1.0, 1.0, 0.5])
    assert [len(top(edges, k)) for k in (1, 2, 3, 4)] == [1, 3, 3, 4]


def test_stability_is_over_all_pairs():
    lists = [drawn(seed) for seed in range(4)]
    found = stability(lists, 10)
    pairs = [(a, b) for at, a in enumerate(lists) for b in lists[:at]]
    assert found.pairs == 6
    assert found.jaccard == pytest.approx(np.mean([jaccard(a, b, 10) for a, b in pairs]))
    assert found.jaccard_sd == pytest.approx(np.std([jaccard(a, b, 10) for a, b in pairs], ddof=1))
    assert found.spearman == pytest.approx(np.mean([spearman(a, b) for a, b in pairs]))
    assert found.spearman_sd == pytest.approx(np.std([spearman(a, b) for a, b in pairs], ddof=1))
    overlaps = [jaccard(a, b, 10) for a, b in pairs]
    assert found.jaccard_median == pytest.approx(np.median(overlaps))
    assert found.jaccard_deviation == pytest.approx(np.mean([abs(one - np.mean(overlaps)) for one in overlaps]))
    assert found.spearman_median == pytest.approx(np.median([spearman(a, b) for a, b in pairs]))
    assert np.mean(agreement_with_others(lists, 10)) == pytest.approx(found.jaccard)
    assert agreement_with_others(lists, 10)[2] == pytest.approx(
        np.mean([jaccard(lists[2], lists[other], 10) for other in (0, 1, 3)])
    )


def test_equal_networks_agree_wholly_and_one_alone_is_refused():
    found = stability([drawn(0), drawn(0)], 5)
    assert (found.jaccard, found.spearman) == (1, pytest.approx(1))
    assert np.isnan(found.jaccard_sd)
    for one in (stability, agreement_with_others):
        with pytest.raises(UserError, match="there is 1; give two or more"):
            one([drawn(0)], 5)
