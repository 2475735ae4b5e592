import runpy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.data.simulated import correlation_ratio, difference_of_means_ratio, simulated, zero_share

REPOSITORY = Path(__file__).parents[3]
SEEDS = range(10)
FEW_SEEDS = range(5)  # of the other difficulties


@pytest.mark.parametrize(
    ("genes", "regulators", "seeds"),
    [
        (100, 20, range(10)),
        pytest.param(200, 40, range(5), marks=pytest.mark.slow),
        pytest.param(500, 100, range(2), marks=pytest.mark.slow),
        pytest.param(1000, 40, [8], marks=pytest.mark.slow),  # the easiest of 30
    ],
)
def test_correlation_finds_some_of_the_network_but_not_much(genes: int, regulators: int, seeds: Iterable[int]):
    for seed in seeds:
        assert 1.5 < correlation_ratio(simulated(seed, "realistic", genes, regulators)) < 8


def test_difference_of_means_finds_the_targets_of_perturbed_regulators():
    ratios = [difference_of_means_ratio(simulated(seed)) for seed in SEEDS]
    assert min(ratios) > 3
    assert np.mean(ratios) > np.mean([correlation_ratio(simulated(seed)) for seed in SEEDS])


@pytest.mark.parametrize("measure", [correlation_ratio, difference_of_means_ratio])
def test_easy_is_easier_and_hard_is_harder(measure):
    easy, realistic, hard = (
        np.mean([measure(simulated(seed, difficulty)) for seed in FEW_SEEDS])
        for difficulty in ("easy", "realistic", "hard")
    )
    assert easy > 1.2 * realistic
    assert realistic > 1.2 * hard


def test_the_documented_figures_are_these_measures():
    measure = runpy.run_path(str(REPOSITORY / "scripts" / "measure_simulator.py"))["measure"](simulated())
    assert measure.correlation == pytest.approx(correlation_ratio(simulated()), rel=1e-6)
    assert measure.difference == pytest.approx(difference_of_means_ratio(simulated()), rel=1e-6)
    assert measure.zeros == pytest.approx(zero_share(simulated()))
    assert len(measure.left) == 30


def test_a_harder_data_set_has_more_zeros():
    zeros = [zero_share(simulated(0, difficulty)) for difficulty in ("easy", "realistic", "hard")]
    assert zeros[0] + 0.05 < zeros[1] < zeros[2] - 0.05
