import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from grndist.evaluation import ranking

MEASURES = [
    ranking.beeline_early_precision,
    ranking.beeline_auprc,
    ranking.dazzle_early_precision,
    ranking.dazzle_average_precision,
]


@st.composite
def rankings(draw):
    """Scores with many ties and zeros, and labels of which at least one is true."""
    n = draw(st.integers(1, 40))
    score = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    is_true = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    return np.array(score, dtype=float), np.array(is_true)


def by_hand_beeline(score, is_true):
    """The rule as published: cutoff = max(smallest non-zero score, k-th score); all edges at or above it."""
    if not score.any():
        return 0.0
    kth = sorted(score, reverse=True)[int(is_true.sum()) - 1]
    cutoff = max(kth, min(s for s in score if s > 0))
    kept = [true for s, true in zip(score, is_true, strict=True) if s >= cutoff]
    return sum(kept) / len(kept)


def by_hand_dazzle(score, is_true):
    """The rule as published: EP = true edges strictly above the k-th score; EPR = EP / (k^2 / N)."""
    k = int(is_true.sum())
    kth = sorted(score, reverse=True)[k - 1]
    hits = sum(true for s, true in zip(score, is_true, strict=True) if s > kth)
    return hits / (k**2 / len(score))


@given(rankings())
def test_early_precision_is_what_the_published_rules_say(case):
    assert ranking.beeline_early_precision(*case) == pytest.approx(by_hand_beeline(*case), abs=1e-15)
    epr = ranking.ratio_to_chance(ranking.dazzle_early_precision(*case), case[1])
    assert epr == pytest.approx(by_hand_dazzle(*case), rel=1e-12)


@given(rankings())
def test_areas_are_those_of_scikit_learn(case):
    score, is_true = case
    precision, recall, _ = precision_recall_curve(is_true, score)
    assert ranking.beeline_auprc(score, is_true) == pytest.approx(auc(recall, precision), rel=1e-12)
    expected = average_precision_score(is_true, score)
    assert ranking.dazzle_average_precision(score, is_true) == pytest.approx(expected, rel=1e-12)


@given(rankings(), st.randoms(use_true_random=False))
def test_row_order_never_changes_a_score(case, random):
    order = list(range(len(case[0])))
    random.shuffle(order)
    for measure in MEASURES:
        assert measure(case[0][order], case[1][order]) == measure(*case)


@given(rankings(), st.sampled_from([np.sqrt, np.square, np.log1p, np.expm1, lambda score: 1e-9 * score]))
def test_monotone_transforms_never_change_a_score(case, transform):
    for measure in MEASURES:
        assert measure(transform(case[0]), case[1]) == measure(*case)


def test_a_perfect_ranking_reaches_the_top():
    score, is_true = np.arange(10.0), np.arange(10) >= 6
    assert ranking.beeline_early_precision(score, is_true) == 1
    assert ranking.dazzle_early_precision(score, is_true) == 3 / 4  # strictly above the k-th: k - 1 edges
    assert ranking.beeline_auprc(score, is_true) == pytest.approx(1)
    assert ranking.dazzle_average_precision(score, is_true) == pytest.approx(1)
    assert ranking.ratio_to_chance(1.0, is_true) == 10 / 4


def test_ties_at_the_kth_score_are_all_in_for_beeline_and_all_out_for_dazzle():
    score, is_true = np.array([3.0, 2, 2, 2, 1]), np.array([True, True, False, False, False])
    assert ranking.beeline_top(score, 2).tolist() == [True, True, True, True, False]
    assert ranking.dazzle_top(score, 2).tolist() == [True, False, False, False, False]
    assert ranking.beeline_early_precision(score, is_true) == 2 / 4
    assert ranking.dazzle_early_precision(score, is_true) == 1 / 2


def test_edges_scored_zero_are_never_picked():
    score, is_true = np.array([1.0, 0, 0, 0]), np.array([False, True, True, True])
    assert ranking.beeline_top(score, 3).tolist() == [True, False, False, False]
    assert ranking.dazzle_top(score, 3).tolist() == [True, False, False, False]
    assert [measure(np.zeros(4), is_true) for measure in MEASURES[::2]] == [0, 0]


@pytest.mark.parametrize("measure", MEASURES)
def test_no_true_edge_is_a_mistake_of_ours(measure):
    with pytest.raises(ValueError, match="none of the 3 candidate edges"):
        measure(np.ones(3), np.zeros(3, dtype=bool))
