import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.sweeps.pareto import pareto_front

VALUES = st.one_of(st.integers(0, 4).map(float), st.sampled_from([np.nan, np.inf]))


@given(
    rows=st.lists(
        st.tuples(VALUES, VALUES, st.sampled_from(["finished", "finished", "stopped", "failed"])), max_size=12
    ),
    directions=st.tuples(*[st.sampled_from(["max", "min"])] * 2),
)
def test_the_front_is_what_nothing_dominates(rows, directions):
    table = pd.DataFrame(rows, columns=["a", "b", "status"], index=range(3, 3 + len(rows)))

    def good(row) -> list[float]:
        return [value if direction == "max" else -value for value, direction in zip(row[:2], directions, strict=True)]

    able = {i: good(row) for i, row in enumerate(rows, 3) if row[2] == "finished" and np.isfinite(row[:2]).all()}
    expected = {
        i
        for i, own in able.items()
        if not any(all(x >= y for x, y in zip(other, own, strict=True)) and other != own for other in able.values())
    }
    found = pareto_front(table, dict(zip("ab", directions, strict=True)))
    assert set(found.index) == expected
    assert len(found) == len(expected)
    assert found["a"].tolist() == sorted(found["a"], reverse=directions[0] == "max")
    pd.testing.assert_frame_equal(found, table.loc[found.index])


def test_equal_trials_are_all_kept_and_one_objective_has_a_front_too():
    table = pd.DataFrame({"a": [2.0, 1.0, 2.0], "trial": [0, 1, 2]})
    assert pareto_front(table, {"a": "max"})["trial"].tolist() == [0, 2]
    assert pareto_front(table, {"a": "min"})["trial"].tolist() == [1]
    assert pareto_front(table[:0], {"a": "min"}).empty


@pytest.mark.parametrize("missing", [None, "x"])
def test_an_objective_that_is_none_is_not_on_the_front(missing):
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, np.nan], "status": "finished"})
    assert pareto_front(table, {"a": "max", "b": "max"}).index.tolist() == [0]
