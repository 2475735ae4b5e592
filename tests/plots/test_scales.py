import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.plots.scales import axis_of, written


@given(
    values=st.lists(st.one_of(st.none(), st.floats(1e-8, 1e8)), min_size=1, max_size=9),
    scale=st.sampled_from(["linear", "log"]),
)
def test_numbers_are_between_the_ends_in_order_and_ticks_too(values, scale):
    axis = axis_of(pd.Series(values, dtype=object), scale)
    known = np.array([value is not None for value in values])
    assert np.array_equal(np.isfinite(axis.share), known)
    numbers = np.array([value for value in values if value is not None])
    shares = axis.share[known]
    assert ((shares >= -1e-9) & (shares <= 1 + 1e-9)).all()
    assert (np.diff(shares[np.argsort(numbers)]) >= -1e-9).all()
    assert all(-1e-6 <= tick <= 1 + 1e-6 for tick in axis.tick_shares)
    assert len(axis.ticks) == len(axis.labels) <= 8


def test_logarithms_have_round_ticks():
    assert axis_of(pd.Series([1e-5, 1e-2]), "log").labels == ("1e-5", "1e-4", "0.001", "0.01")
    assert axis_of(pd.Series([0.1, 2.0]), "log").labels == ("0.1", "0.3", "1")
    assert axis_of(pd.Series([2.0, 3.0]), "log").labels == ("2", "2.2", "2.4", "2.6", "2.8", "3")
    middle = axis_of(pd.Series([1e-5, 1e-3]), "log")
    assert middle.tick_shares == pytest.approx([0, 0.5, 1])


def test_one_value_stands_in_the_middle():
    for scale in ("linear", "log", "categorical"):
        axis = axis_of(pd.Series([4.0, 4.0]), scale)
        assert axis.share.tolist() == axis.tick_shares * 2 == pytest.approx([0.5, 0.5])
        assert axis.labels == ("4",)


def test_categories_stand_in_order_and_numbers_by_size():
    axis = axis_of(pd.Series([16, 2.0, None, 128], dtype=object), "categorical")
    assert axis.labels == ("2", "16", "128")
    assert axis.share[[1, 0, 3]].tolist() == axis.tick_shares == [0, 0.5, 1]
    assert np.isnan(axis.share[2])
    words = axis_of(pd.Series([True, "b", [1, 2], "a name of many letters"]), "categorical")
    assert words.labels == ("[1, 2]", "a name of man…", "b", "true")


def test_nothing_has_no_ticks():
    for scale in ("linear", "log", "categorical"):
        axis = axis_of(pd.Series([None, None], dtype=object), scale)
        assert axis.ticks == axis.labels == ()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (0.25, "0.25"), (1234.56, "1235"), (12000.0, "12,000"), (1e-5, "1e-5"), (2.5e7, "2.5e7"),
     (-3e-4, "-3e-4")],
)  # fmt: skip
def test_numbers_are_short(number: float, text: str):
    assert written(number) == text
