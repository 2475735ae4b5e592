"""The compiled comparison against SciPy: ties, tiny groups, unequal sizes, offsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu, wasserstein_distance

from grndist.evaluation.interventional.kernels import compare, compare_pairs, running_sums, tie_term
from grndist.evaluation.interventional.rank_sum import asymptotic_p, needs_exact_test


def measured(control: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """P by the normal approximation, and the distance."""
    ascending = np.sort(control.astype(np.float64))
    wins, ties, distance = compare(
        ascending, running_sums(ascending), tie_term(ascending), np.sort(group.astype(np.float64))
    )
    p = asymptotic_p(np.array([wins]), np.array([ties]), np.array([len(group)]), len(control))
    return float(p[0]), distance


def values(element: st.SearchStrategy, most: int) -> st.SearchStrategy:
    return st.integers(1, most).flatmap(lambda n: arrays(np.float32, n, elements=element))


TIED = st.integers(-3, 3).map(float)
ANY = st.floats(-8, 8, width=32)
LOGS = st.one_of(st.just(0.0), st.floats(0, 8, width=32))


@pytest.mark.parametrize("element", [TIED, ANY, LOGS], ids=["tied", "any", "mostly zero"])
def test_both_statistics_are_scipys(element: st.SearchStrategy):
    @settings(max_examples=50)
    @given(control=values(element, 60), group=values(element, 40))
    def equal(control: np.ndarray, group: np.ndarray) -> None:
        exact = control.astype(np.float64), group.astype(np.float64)
        p, distance = measured(control, group)
        assert p == pytest.approx(mannwhitneyu(*exact, method="asymptotic").pvalue, rel=1e-13, abs=0)
        assert distance == pytest.approx(wasserstein_distance(*exact), rel=1e-12, abs=1e-14)

    equal()


@settings(max_examples=50)
@given(n_controls=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 999), tied=st.booleans())
def test_the_exact_test_is_taken_where_scipy_takes_it(n_controls: int, n: int, seed: int, tied: bool):
    drawn = np.random.default_rng(seed).permutation(100)[: n_controls + n].astype(float)
    if tied:
        drawn[-1] = drawn[0]
    control, group = drawn[:n_controls], drawn[n_controls:]
    ties = np.array([tie_term(np.sort(drawn))])
    method = "exact" if needs_exact_test(n_controls, np.array([n]), ties)[0] else "asymptotic"
    assert mannwhitneyu(control, group).pvalue == mannwhitneyu(control, group, method=method).pvalue
    assert (method == "exact") == (min(n_controls, n) <= 8 and not tied)


def test_many_controls_and_a_large_offset_cost_no_digits():
    rng = np.random.default_rng(0)
    control, group = (rng.gamma(1, size=n) * (rng.random(n) < 0.4) for n in (200_000, 37))
    for offset in (0.0, 1000.0):
        p, distance = measured(control + offset, group + offset)
        exact = control + offset, group + offset
        assert p == pytest.approx(mannwhitneyu(*exact).pvalue, rel=1e-12)
        assert distance == pytest.approx(wasserstein_distance(*exact), rel=1e-12)


def test_equal_values_differ_in_nothing():
    assert measured(np.zeros(30), np.zeros(12)) == (1.0, 0.0)
    assert mannwhitneyu(np.zeros(30), np.zeros(12)).pvalue == 1


def test_pairs_of_several_targets_are_each_compared():
    rng = np.random.default_rng(1)
    cells = rng.poisson(1.5, (3, 50)).astype(np.float32)
    target, start, stop = np.array([0, 0, 2]), np.array([20, 35, 35]), np.array([35, 50, 50])
    out = np.empty((3, 3))
    compare_pairs(cells, 20, target, start, stop, out)
    for row, first, last, (wins, _, distance) in zip(target, start, stop, out, strict=True):
        control, group = cells[row, :20].astype(float), cells[row, first:last].astype(float)
        assert wins == mannwhitneyu(group, control).statistic
        assert distance == pytest.approx(wasserstein_distance(control, group), rel=1e-13)
