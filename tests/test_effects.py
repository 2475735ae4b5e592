import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm, spearmanr
from sklearn.covariance import shrunk_covariance

from grndist import effects
from grndist.effects import (
    blend,
    difference_of_means,
    edge_log_odds,
    partial_correlation,
    posterior_log_odds,
    transferred_odds,
    without_self,
)
from grndist.seeds import stream

SIZES = np.array([20, 3])


def two_groups(kind: str, deviation: np.ndarray | None = None) -> np.ndarray:
    means, control = np.array([[1.0, 2, 5], [0, 2, 1]]), np.array([1.0, 3, 1])
    return difference_of_means(
        means, control, np.array([2.0, 0.5, 1]) if deviation is None else deviation, SIZES, 100, kind
    )


# --- difference of means ---


def test_the_log_difference_is_perturbed_minus_control():
    assert two_groups("log").tolist() == [[0, -1, 4], [-1, -1, 0]]


def test_z_divides_by_the_standard_error_of_the_difference():
    z = two_groups("z")
    assert z[0, 1] == pytest.approx(-1 / (0.5 * np.sqrt(1 / 20 + 1 / 100)))
    assert z[1, 0] == pytest.approx(-1 / (2 * np.sqrt(1 / 3 + 1 / 100)))


def test_a_gene_that_never_varies_has_z_zero():
    z = two_groups("z", np.array([2.0, 0, 1]))
    assert z[:, 1].tolist() == [0, 0]
    assert z[0, 2] > 0


def test_z_is_standard_normal_without_an_effect():
    rng = stream(0, "null")
    cells = rng.normal(3, 2, size=(400, 50, 30))
    means = cells.mean(axis=1)
    controls = rng.normal(3, 2, size=(200, 30))
    z = difference_of_means(means, controls.mean(0), np.full(30, 2.0), np.full(400, 50), 200, "z")
    assert z.std() == pytest.approx(1, abs=0.15)  # 30 control means are shared by the groups


@pytest.mark.parametrize(("sizes", "n_controls"), [([20, 0], 100), ([20, 3], 0)])
def test_a_group_without_cells_is_refused(sizes: list[int], n_controls: int):
    with pytest.raises(ValueError, match="each needs a cell"):
        difference_of_means(np.zeros((2, 3)), np.zeros(3), np.ones(3), np.array(sizes), n_controls, "log")


# --- partial correlation ---


def covariance(genes: int = 12) -> np.ndarray:
    return np.cov(
        stream(1, "cells").normal(size=(40, genes)) @ stream(2, "mixing").normal(size=(genes, genes)), rowvar=False
    )


@pytest.mark.parametrize("shrinkage", [0.01, 0.5, 1.0])
def test_partial_correlation_is_the_scaled_inverse_of_the_shrunk_correlation(shrinkage: float):
    c = covariance()
    before = c.copy()
    correlation = c / np.sqrt(np.outer(c.diagonal(), c.diagonal()))
    inverse = np.linalg.inv(shrunk_covariance(correlation, shrinkage=shrinkage))
    expected = -inverse / np.sqrt(np.outer(inverse.diagonal(), inverse.diagonal()))
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(partial_correlation(c, shrinkage), expected, atol=1e-12)
    assert np.array_equal(c, before)


def test_partial_correlation_removes_what_a_third_gene_explains():
    rng = stream(3, "chain")
    a = rng.normal(size=100_000)
    b = a + rng.normal(size=a.size)
    c = b + rng.normal(size=a.size)
    found = partial_correlation(np.cov([a, b, c]), 1e-6)
    assert abs(found[0, 2]) < 0.02
    assert found[0, 1] > 0.5


def test_partial_correlation_is_exactly_symmetric_and_does_not_know_the_genes_units():
    c, units = covariance(), np.exp(stream(4, "units").normal(size=12))
    found = partial_correlation(c)
    assert np.array_equal(found, found.T)
    np.testing.assert_allclose(partial_correlation(c * np.outer(units, units)), found, atol=1e-12)


def test_a_gene_that_never_varies_is_correlated_with_nothing():
    c = covariance()
    c[3] = c[:, 3] = 0
    found = partial_correlation(c)
    assert np.delete(found[3], 3).tolist() == [0] * 11
    others = np.delete(np.arange(12), 3)
    np.testing.assert_allclose(
        found[np.ix_(others, others)], partial_correlation(c[np.ix_(others, others)]), atol=1e-12
    )


@pytest.mark.parametrize("shrinkage", [0.0, -0.5, 1.5])
def test_a_shrinkage_without_an_inverse_is_refused(shrinkage: float):
    with pytest.raises(ValueError, match="must be above 0"):
        partial_correlation(covariance(), shrinkage)


def test_what_is_no_covariance_is_refused():
    with pytest.raises(ValueError, match="negative eigenvalues"):
        partial_correlation(np.array([[1.0, -9, 0], [-9, 1, 0], [0, 0, 1]]))


# --- blend ---


def test_an_activators_two_kinds_of_evidence_add_up():
    effect = np.array([[np.nan, -2.0, 0, 2.0]])
    association = np.array([[np.nan, 0.4, 0, -0.4]])
    v = blend(effect, association, 0.5)
    assert v[0, 1:] == pytest.approx(1.5 * np.array([-1, 0, 1]) * np.sqrt(1.5))
    assert np.isnan(v[0, 0])


def test_a_constant_part_adds_nothing():
    effect = np.array([[1.0, -1.0, 3.0]])
    np.testing.assert_allclose(blend(effect, np.zeros((1, 3))), effect / effect.std())


def test_without_self_marks_each_regulators_own_gene_and_leaves_the_argument():
    scores = np.ones((2, 4), dtype=np.float32)
    assert np.argwhere(np.isnan(without_self(scores, np.array([3, 0])))).tolist() == [[0, 3], [1, 0]]
    assert np.isfinite(scores).all()


# --- posterior log odds ---


def planted(shares: list[float], targets: int = 2000, wide: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Values of regulators with these shares of wide entries, and which entries are wide."""
    rng = stream(5, "planted")
    is_wide = rng.random((len(shares), targets)) < np.array(shares)[:, None]
    return rng.normal(size=is_wide.shape) * np.where(is_wide, wide, 1.0), is_wide


def test_the_odds_recover_each_regulators_share_and_bayes_rule():
    shares = [0.0, 0.02, 0.1, 0.3]
    v, _ = planted(shares)
    log_odds = posterior_log_odds(v)
    p = expit(log_odds)
    np.testing.assert_allclose(p.mean(axis=1), shares, atol=0.03)
    likelihood = norm.logpdf(v, scale=4) - norm.logpdf(v, scale=1)
    exact = likelihood[1:] + np.log(np.array(shares[1:]) / (1 - np.array(shares[1:])))[:, None]
    assert np.abs(log_odds[1:] - exact)[np.abs(v[1:]) < 6].mean() < 0.4


def test_a_regulator_with_many_targets_needs_less_evidence_for_each():
    v, is_wide = planted([0.01, 0.4])
    log_odds = posterior_log_odds(v)
    assert np.interp(2, *np.sort([np.abs(v[1]), log_odds[1]], axis=1)) > 1 + np.interp(
        2, *np.sort([np.abs(v[0]), log_odds[0]], axis=1)
    )
    right = (log_odds > 0) == is_wide
    assert right.mean() > 0.85


def test_thirty_steps_are_enough():
    v, _ = planted([0.0, 0.05, 0.2])
    np.testing.assert_allclose(posterior_log_odds(v), posterior_log_odds(v, n_steps=500), atol=0.05)


@given(
    values=st.lists(
        st.lists(st.sampled_from([0.0, 0.1, -0.5, 1.0, -1.0, 3.0, 1e4, np.nan]), min_size=6, max_size=6), max_size=5
    ),
    unit=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_odds_grow_with_the_size_and_know_neither_order_nor_unit(values, unit):
    v = np.array(values).reshape(-1, 6)
    log_odds = posterior_log_odds(v)
    assert np.array_equal(np.isnan(log_odds), np.isnan(v))
    for sizes, odds in zip(np.abs(v), log_odds, strict=True):
        known = ~np.isnan(sizes)
        order = np.argsort(sizes[known])
        assert (np.diff(odds[known][order]) >= 0).all()
        assert np.isfinite(odds[known]).all()
    backwards = posterior_log_odds(unit * v[::-1, ::-1])[::-1, ::-1]
    np.testing.assert_allclose(backwards, log_odds, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("v", [np.zeros((3, 4)), np.ones((3, 4)), -np.ones((1, 4))])
def test_where_all_are_alike_so_are_their_odds(v: np.ndarray):
    log_odds = posterior_log_odds(v)
    assert np.isfinite(log_odds).all()
    assert np.ptp(log_odds) < 1e-9


def test_genes_that_are_never_seen_change_no_other_odds():
    v, _ = planted([0.05, 0.2])
    seen = posterior_log_odds(v)
    with_zeros = posterior_log_odds(np.hstack([v, np.zeros((2, 3000))]))
    np.testing.assert_allclose(with_zeros[:, :2000], seen, atol=1e-9)
    assert (with_zeros[:, 2000:] <= seen.min(axis=1, keepdims=True)).all()


def test_an_infinite_entry_is_refused():
    with pytest.raises(ValueError, match="infinite"):
        posterior_log_odds(np.array([[1.0, np.inf]]))


# --- all regulators on one scale ---


def associated(shares: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects, a weaker association of the same edges (with the opposite sign), and the edges."""
    effect, edges = planted(shares, targets=400)
    association = -0.1 * np.sign(effect) * edges + stream(6, "association").normal(0, 0.1, size=effect.shape)
    return without_self(effect, np.arange(len(shares))), without_self(association, np.arange(len(shares))), edges


def test_what_an_association_says_is_learnt_from_the_perturbed_regulators():
    effect, association, edges = associated([0.1] * 40)
    perturbed = np.arange(0, 40, 2)
    log_odds = edge_log_odds(effect[perturbed], association, perturbed)
    others = np.arange(1, 40, 2)
    known = ~np.isnan(log_odds[others])
    p = expit(log_odds[others][known])
    assert p.mean() == pytest.approx(edges[others].mean(), abs=0.04)
    assert spearmanr(p, np.abs(association[others][known])).statistic == pytest.approx(1)
    assert p.max() < 0.9  # the association is weak, and no entry of it is certain
    assert np.nanmax(log_odds[perturbed]) > 5


def test_perturbed_regulators_have_the_odds_of_the_blend():
    effect, association, _ = associated([0.1] * 10)
    perturbed = np.array([7, 2])
    found = edge_log_odds(effect[perturbed], association, perturbed, 0.3)
    expected = posterior_log_odds(blend(effect[perturbed], association[perturbed], 0.3))
    np.testing.assert_array_equal(found[perturbed], expected)


def test_an_association_that_says_nothing_leaves_the_others_below_the_effects():
    effect, association, _ = associated([0.1] * 10)
    perturbed = np.arange(5)
    found = edge_log_odds(effect[perturbed], association[:, ::-1].copy(), perturbed)
    assert np.nanstd(found[5:]) < 1
    flat = edge_log_odds(effect[perturbed], np.zeros_like(association), perturbed)
    assert np.ptp(flat[5:]) == 0
    assert np.isfinite(flat[5:]).all()


@given(seed=st.integers(0, 2**32), heavy=st.sampled_from([1, 2, 5]), level=st.sampled_from([-8.0, -3.0, 0.0]))
def test_the_mean_of_the_learnt_odds_is_that_of_the_effects_even_with_wild_associations(seed, heavy, level):
    rng = stream(seed, "wild")
    x = np.abs(rng.standard_t(heavy, size=300))
    p = expit(level + rng.normal(size=300) + 3 * x / x.mean())
    offset, slope = effects._logistic_line(x / x.mean(), p)
    assert expit(offset + slope * x / x.mean()).mean() == pytest.approx(p.mean(), abs=0.01)


def test_without_a_perturbed_regulator_more_association_is_still_more_likely():
    offset, slope = transferred_odds(np.zeros((0, 5)), np.zeros((0, 5)))
    assert expit(offset) == pytest.approx(0.1)
    assert slope > 0


def test_without_perturbation_the_order_is_the_associations():
    _, association, _ = associated([0.1] * 6)
    found = edge_log_odds(np.zeros((0, 400)), association, np.zeros(0, dtype=np.int64))
    known = ~np.isnan(found)
    assert spearmanr(found[known], np.abs(association[known])).statistic == pytest.approx(1)
    assert np.array_equal(known, ~np.isnan(association))
