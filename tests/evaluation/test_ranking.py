import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from grndist.evaluation import ranking
from grndist.networks.edges import edge_list
from grndist.networks.stability import stability

MEASURES = [
    ranking.beeline_early_precision,
    ranking.beeline_auprc,
    ranking.dazzle_early_precision,
    ranking.dazzle_average_precision,
    ranking.auroc,
]
SIX = [("A", "B"), ("A", "C"), ("B", "A"), ("B", "C"), ("C", "A"), ("C", "B")]


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
    if is_true.all():
        assert np.isnan(ranking.auroc(score, is_true))
    else:
        assert ranking.auroc(score, is_true) == pytest.approx(roc_auc_score(is_true, score), rel=1e-12, abs=1e-15)


@given(rankings(), st.randoms(use_true_random=False))
def test_row_order_never_changes_a_score(case, random):
    order = list(range(len(case[0])))
    random.shuffle(order)
    for measure in MEASURES:
        assert np.array_equal(measure(case[0][order], case[1][order]), measure(*case), equal_nan=True)


@given(rankings(), st.sampled_from([np.sqrt, np.square, np.log1p, np.expm1, lambda score: 1e-9 * score]))
def test_monotone_transforms_never_change_a_score(case, transform):
    for measure in MEASURES:
        assert np.array_equal(measure(transform(case[0]), case[1]), measure(*case), equal_nan=True)


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
    assert [measure(np.zeros(4), is_true) for measure in MEASURES[:3:2]] == [0, 0]


@pytest.mark.parametrize("measure", MEASURES)
def test_no_true_edge_is_a_mistake_of_ours(measure):
    with pytest.raises(ValueError, match="none of the 3 candidate edges"):
        measure(np.ones(3), np.zeros(3, dtype=bool))


def by_hand_signed(score, is_true, sign, wanted):
    """As published: true edges that have not the wanted sign are no candidates; then EPR over those left."""
    left = [(s, true) for s, true, own in zip(score, is_true, sign, strict=True) if not true or own == wanted]
    true = np.array([one[1] for one in left], dtype=bool)
    return by_hand_beeline(np.array([one[0] for one in left]), true) / (true.sum() / len(true))


@given(rankings(), st.data())
def test_signed_early_precision_is_what_the_published_rule_says(case, data):
    score, is_true = case
    sign = np.array(data.draw(st.lists(st.sampled_from([1, -1, 0]), min_size=len(score), max_size=len(score))))
    for wanted in (1, -1):
        found = ranking.beeline_signed_ratio(score, is_true, sign, wanted)
        if (is_true & (sign == wanted)).any():
            assert found == pytest.approx(by_hand_signed(score, is_true, sign, wanted), rel=1e-12)
        else:
            assert np.isnan(found)


# --- six edges, by hand ---
#
# Three genes, six candidates: A->B 0.9, B->C 0.8, C->A 0.7, A->C 0.7, B->A 0.2, C->B 0.
# True are A->B (+), A->C (-), C->B (+): k = 3 of N = 6, so chance is a half.

WEIGHT = {("A", "B"): 0.9, ("B", "C"): 0.8, ("C", "A"): 0.7, ("A", "C"): 0.7, ("B", "A"): 0.2}
SIGN = {("A", "B"): 1, ("A", "C"): -1, ("C", "B"): 1}
SCORE = np.array([WEIGHT.get(pair, 0.0) for pair in SIX])
TRUE = np.array([pair in SIGN for pair in SIX])
SIGNS = np.array([SIGN.get(pair, 0) for pair in SIX])


def test_early_precision_by_hand():
    # the third score is 0.7, which two edges have: BEELINE takes four edges, of which A->B and A->C are true
    assert ranking.beeline_early_precision(SCORE, TRUE) == 2 / 4
    assert ranking.ratio_to_chance(2 / 4, TRUE) == 1
    # DAZZLE takes the two above 0.7, of which one is true: 1 / (3 x 3 / 6)
    assert ranking.ratio_to_chance(ranking.dazzle_early_precision(SCORE, TRUE), TRUE) == pytest.approx(1 / 1.5)


def test_areas_by_hand():
    # by falling score: (recall, precision) = (1/3, 1), (1/3, 1/2), (2/3, 2/4), (2/3, 2/5), (1, 3/6)
    trapezoid = (1 + 1) / 2 / 3 + (1 / 2 + 2 / 4) / 2 / 3 + (2 / 5 + 3 / 6) / 2 / 3
    assert ranking.beeline_auprc(SCORE, TRUE) == pytest.approx(trapezoid)
    assert ranking.ratio_to_chance(trapezoid, TRUE) == pytest.approx(2 * trapezoid)
    average = 1 / 3 * 1 + 1 / 3 * 2 / 4 + 1 / 3 * 3 / 6
    assert ranking.dazzle_average_precision(SCORE, TRUE) == pytest.approx(average)
    # A->B beats the three false edges, A->C beats B->A and ties with C->A, C->B beats none: 4.5 of 9 pairs
    assert ranking.auroc(SCORE, TRUE) == pytest.approx(4.5 / 9)


def test_signed_early_precision_by_hand():
    # activating: without A->C five candidates are left, two of them true; the second score is 0.8: A->B and B->C
    assert ranking.beeline_signed_ratio(SCORE, TRUE, SIGNS, 1) == pytest.approx((1 / 2) / (2 / 5))
    # repressing: without A->B and C->B four are left, A->C true; the first score is 0.8: B->C alone
    assert ranking.beeline_signed_ratio(SCORE, TRUE, SIGNS, -1) == 0


def test_stability_by_hand():
    # the other network has A->B 0.5, C->B -0.4, B->C 0.3: its top 3 shares A->B and B->C with the four above
    first = edge_list(*zip(*WEIGHT, strict=True), list(WEIGHT.values()), genes="ABC")
    other = edge_list("ACB", "BBC", [0.5, -0.4, 0.3], genes="ABC")
    found = stability([first, other], 3)
    assert found.jaccard == found.jaccard_median == 2 / 5
    # mean ranks of the six weights: 6, 5, 3.5, 3.5, 2, 1 against 6, 5, 3, 3, 3, 1 (A->B B->C C->A A->C B->A C->B)
    d = np.array([[6, 5, 3.5, 3.5, 2, 1], [6, 5, 3, 3, 3, 1]]) - 3.5
    assert found.spearman == pytest.approx((d[0] * d[1]).sum() / np.sqrt((d[0] ** 2).sum() * (d[1] ** 2).sum()))
