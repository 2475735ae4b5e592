import numpy as np
import pytest
from scipy import sparse

from grndist.data.simulate import CONDITIONS, dynamics


def test_counts_are_overdispersed_and_rare_ones_are_lost_more_often():
    conditions = CONDITIONS["realistic"]
    low, high = (
        dynamics.count(np.full((400, 500), mean), conditions, np.random.default_rng(0)) for mean in (0.1, 20.0)
    )
    assert high.var() > 3 * high.mean()
    assert low.mean() / 0.1 == pytest.approx(1 - conditions.dropout / 1.1, abs=0.03)
    assert high.mean() / 20 == pytest.approx(1 - conditions.dropout / 21, abs=0.03)


def test_without_regulation_the_level_has_mean_one_and_the_noise_of_its_molecules():
    rate = np.ones((50, 400), dtype=np.float32)
    unregulated = sparse.csr_array((50, 1), dtype=np.float32)
    level = dynamics.steady_state(rate, unregulated, np.array([0]), 50.0, np.random.default_rng(0))
    assert level.mean() == pytest.approx(1, abs=0.01)
    assert level.var() == pytest.approx(1 / 50 / (1 - dynamics.STEP / 2), rel=0.05)  # Euler-Maruyama's own variance


def test_a_noise_free_level_is_the_fixed_point_of_the_equation():
    rate = np.ones((3, 1), dtype=np.float32)
    rate[0] = 0.1  # knocked down
    weights = sparse.csr_array(np.array([[0], [2], [-2]], dtype=np.float32))
    level = dynamics.steady_state(rate, weights, np.array([0]), 1e12, np.random.default_rng(0)).ravel()
    shift = dynamics.BOUND * np.tanh(2 * (0.01 / 1.01 - 0.5) / dynamics.BOUND)
    assert level == pytest.approx([0.1, np.exp(shift), np.exp(-shift)], rel=0.02)
