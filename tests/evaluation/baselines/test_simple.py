import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.evaluation.baselines import absolute_correlation, random_scores
from grndist.seeds import stream


def expression(cells: int = 60, genes: int = 7) -> np.ndarray:
    rng = stream(0, "test-expression")
    return (rng.normal(size=(cells, genes)) @ rng.normal(size=(genes, genes))).astype(np.float32)


@given(cuts=st.lists(st.integers(0, 60), max_size=6).map(sorted))
def test_correlation_is_numpys_however_the_cells_are_cut(cuts):
    x = expression()
    found = absolute_correlation(np.split(x, cuts))
    np.testing.assert_allclose(found, np.abs(np.corrcoef(x.T.astype(float))), atol=1e-12)


def test_correlation_is_exactly_symmetric_and_at_most_one():
    found = absolute_correlation([expression(500, 40)])
    assert np.array_equal(found, found.T)
    assert found.max() <= 1


def test_a_large_offset_does_no_harm():
    x = np.round(expression() * 8)  # exact in float32 beside the offset
    offset = np.float32(2**19)
    found = absolute_correlation(np.split(x + offset, 3))
    np.testing.assert_allclose(found, absolute_correlation([x]), atol=1e-9)


@pytest.mark.parametrize("value", [0, 0.1, 1e7])
def test_a_constant_gene_correlates_with_nothing(value):
    x = expression()
    x[:, 2] = value
    found = absolute_correlation([x[:13], x[13:13], x[13:]])
    assert not found[2].any()
    assert not found[:, 2].any()
    assert found[0, 0] == pytest.approx(1)


def test_one_cell_correlates_nothing_and_no_cell_is_refused():
    assert not absolute_correlation([expression(1)]).any()
    with pytest.raises(ValueError, match="no cells"):
        absolute_correlation([expression(0), expression(0)])


def test_random_scores_depend_on_seed_and_draw_alone():
    assert np.array_equal(random_scores(9, 1, 2), random_scores(9, 1, 2))
    assert not np.array_equal(random_scores(9, 1, 2), random_scores(9, 1, 3))
    assert not np.array_equal(random_scores(9, 1, 2), random_scores(9, 2, 2))
