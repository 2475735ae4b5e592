from functools import cache

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from grndist.data.simulate import SimulationConfig, simulate
from grndist.evaluation.baselines import (
    SCREEN_BASELINES,
    Screen,
    Strata,
    blend_odds,
    mean_difference_log,
    mean_difference_odds,
    mean_difference_z,
    partial_correlation_size,
    strata_scores,
)
from grndist.seeds import stream
from tests.data.simulated import groups, scaled, truth


@cache
def screen(perturbed_share: float = 0.5) -> tuple[Screen, np.ndarray]:
    """The sums of a simulated screen of 100 genes, and its true edges."""
    config = SimulationConfig(cells=2500, genes=100, regulators=20, perturbed_share=perturbed_share, difficulty="easy")
    simulation = simulate(config)
    values, (columns, cells, controls) = scaled(simulation), groups(simulation)
    found = Screen(
        control_mean=values[controls].mean(axis=0),
        deviation=values.std(axis=0),
        n_controls=int(controls.sum()),
        perturbed=np.array(columns, dtype=np.int64),
        group_means=np.array([values[own].mean(axis=0) for own in cells]).reshape(len(columns), 100),
        group_sizes=np.array([own.sum() for own in cells], dtype=np.int64),
        covariance=np.cov(values.T, bias=True),
    )
    return found, truth(simulation)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", SCREEN_BASELINES)
def test_every_baseline_scores_every_pair_of_two_genes(name: str, share: float):
    scores = SCREEN_BASELINES[name](screen(share)[0])
    assert scores.shape == (100, 100)
    assert np.array_equal(np.isnan(scores), np.eye(100, dtype=bool))
    assert np.isfinite(scores[~np.eye(100, dtype=bool)]).all()


@pytest.mark.parametrize("baseline", [mean_difference_log, mean_difference_z, mean_difference_odds])
def test_without_its_knock_down_a_regulator_has_no_evidence(baseline):
    one, _ = screen()
    scores = baseline(one)
    others = scores[~one.is_perturbed]
    assert np.nanmin(others) == np.nanmax(others) <= np.nanmin(scores[one.is_perturbed])


def test_the_scores_of_perturbed_regulators_are_their_effects():
    one, _ = screen()
    row, gene, target = 3, one.perturbed[3], 7
    difference = one.group_means[row, target] - one.control_mean[target]
    error = one.deviation[target] * np.sqrt(1 / one.group_sizes[row] + 1 / one.n_controls)
    assert mean_difference_log(one)[gene, target] == pytest.approx(abs(difference))
    assert mean_difference_z(one)[gene, target] == pytest.approx(abs(difference / error))


def test_each_kind_of_evidence_finds_the_edges_it_can():
    one, edges = screen()
    found = {baseline: strata_scores(baseline(one), edges, one.is_perturbed) for baseline in SCREEN_BASELINES.values()}
    effect, association, both = (found[name] for name in (mean_difference_z, partial_correlation_size, blend_odds))
    assert effect.perturbed > 4
    assert effect.unperturbed == pytest.approx(1)
    assert association.unperturbed > 1.5
    assert both.perturbed > effect.perturbed > association.perturbed
    assert both.unperturbed == pytest.approx(association.unperturbed)  # the same order
    assert both.all > max(effect.all, association.all)


def test_without_perturbation_the_blend_is_the_partial_correlation():
    one, edges = screen(0.0)
    both, association = (strata_scores(f(one), edges, one.is_perturbed) for f in (blend_odds, partial_correlation_size))
    assert both.all == pytest.approx(association.all)
    assert both.perturbed is None
    assert both.unperturbed == both.all


def test_the_strata_are_average_precision_over_the_share_of_edges():
    rng = stream(0, "strata")
    scores, edges = rng.random((12, 12)).round(1), rng.random((12, 12)) < 0.2
    is_perturbed = np.arange(12) < 5
    found = strata_scores(scores, edges, is_perturbed)
    for rows, value in [
        (is_perturbed, found.perturbed),
        (~is_perturbed, found.unperturbed),
        (is_perturbed | True, found.all),
    ]:
        pairs = rows[:, None] & ~np.eye(12, dtype=bool)
        assert value == pytest.approx(average_precision_score(edges[pairs], scores[pairs]) / edges[pairs].mean())


def test_a_stratum_without_true_edges_has_no_value():
    edges = np.zeros((4, 4), dtype=bool)
    edges[0, 1] = edges[2, 2] = True  # a self pair is no candidate
    scores = np.where(np.eye(4, dtype=bool), np.nan, edges.astype(float))
    assert strata_scores(scores, edges, np.arange(4) < 2) == Strata(perturbed=6.0, unperturbed=None, all=12.0)
