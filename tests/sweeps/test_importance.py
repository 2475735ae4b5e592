import warnings

import numpy as np
import pandas as pd
import pytest

from grndist.sweeps.importance import encoded, importance

PARAMETERS = {"rate": "log", "size": "linear", "form": "categorical", "gain": "log", "flag": "categorical"}


def trials(n: int, seed: int = 0) -> pd.DataFrame:
    """`gain` matters only for form "a", where alone there is one."""
    rng = np.random.default_rng(seed)
    form = rng.choice(["a", "b", "c"], n)
    return pd.DataFrame({
        "rate": 10 ** rng.uniform(-5, -2, n),
        "size": rng.integers(4, 64, n),
        "form": form,
        "gain": np.where(form == "a", 10 ** rng.uniform(-2, 0, n), np.nan),
        "flag": rng.random(n) < 0.5,
        "status": "finished",
    })  # fmt: skip


def planted(table: pd.DataFrame, by: str) -> pd.Series:
    effect = {
        "rate": -((np.log10(table["rate"]) + 3.5) ** 2),
        "size": table["size"] / 20,
        "form": table["form"].map({"a": 0, "b": 2, "c": 1}).astype(float),
        "gain": np.log10(table["gain"]).fillna(-4.0),
        "flag": table["flag"] * 2.0,
    }[by]
    return effect + np.random.default_rng(1).normal(scale=0.2, size=len(table))


@pytest.mark.parametrize("by", ["rate", "gain"])
def test_the_parameter_that_matters_is_first(by: str):
    table = trials(80)
    table["score"] = planted(table, by)
    found = importance(table, PARAMETERS, "score")
    assert set(found["parameter"]) == set(PARAMETERS)
    planted_here = {"gain", "form"} if by in ("gain", "form") else {by}  # these two tell each other
    assert found["parameter"][0] in planted_here
    assert found["importance"][0] > 0.25
    assert found[~found["parameter"].isin(planted_here)]["importance"].abs().max() < 0.05
    assert (found["sd"] >= 0).all()


def test_it_is_a_function_of_the_seed_and_of_finished_trials():
    table = trials(12)
    table["score"] = planted(table, "rate")
    found = importance(table, PARAMETERS, "score", seed=1)
    others = trials(6, seed=5).assign(score=[99.0, -99.0, np.nan, np.inf, 9.0, 9.0])
    others["status"] = ["failed", "stopped", "finished", "finished", "failed", "failed"]
    both = pd.concat([table, others])
    pd.testing.assert_frame_equal(importance(both, PARAMETERS, "score", seed=1), found, check_exact=True)
    assert not importance(table, PARAMETERS, "score", seed=2).equals(found)


def test_too_few_trials_or_nothing_to_explain_give_an_empty_table():
    table = trials(8).assign(score=1.0)
    assert importance(table, PARAMETERS, "score").empty
    table["score"] = np.arange(8.0)
    assert len(importance(table, PARAMETERS, "score")) == len(PARAMETERS)
    few = importance(table[:7], PARAMETERS, "score")
    assert few.empty
    assert list(few) == ["parameter", "importance", "sd"]


def test_values_of_any_kind_are_numbers_for_trees():
    missing = encoded(pd.Series([0.01, np.nan, 1.0]), "log")
    assert missing[1] < missing[0] < missing[2]
    assert encoded(pd.Series([None, None], dtype=object), "linear").tolist() == [0, 0]
    lists = encoded(pd.Series([[1, 2], [3], [1, 2]]), "categorical")
    assert lists[0] == lists[2] != lists[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoded(pd.Series([True, False, None], dtype=object), "categorical")[2] < 0
