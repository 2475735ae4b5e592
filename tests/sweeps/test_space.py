import math
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from grndist.sweeps.space import Parameter, at_random, by_ends, drawn, grid_size

SPACE = {
    "form": Parameter(choice=["full", "bilinear"]),
    "rank": Parameter(integers=(2, 5), when={"form": "bilinear"}),
    "rate": Parameter(loguniform=(1e-4, 1e-1)),
    "share": Parameter(uniform=(0.2, 0.4)),
}


@given(number=st.integers(0, 10**6), seed=st.integers(0, 100))
def test_settings_are_in_their_ranges_and_a_function_of_seed_and_number(number: int, seed: int):
    settings = at_random(SPACE, {}, seed, number)
    assert settings == at_random(SPACE, {}, seed, number)
    assert settings["form"] in {"full", "bilinear"}
    assert 1e-4 <= settings["rate"] <= 1e-1
    assert 0.2 <= settings["share"] <= 0.4
    assert ("rank" in settings) == (settings["form"] == "bilinear")
    assert settings.get("rank", 2) in {2, 3, 4, 5}


def test_another_parameter_changes_nothing_for_the_others():
    fewer = {key: SPACE[key] for key in ("rate", "share")}
    more, less = at_random(SPACE, {}, 3, 7), at_random(fewer, {}, 3, 7)
    assert less == {key: more[key] for key in less}


@given(quantile=st.floats(0, 1, exclude_max=True))
def test_values_follow_their_distribution(quantile: float):
    assert drawn(Parameter(uniform=(1, 3)), quantile) == pytest.approx(1 + 2 * quantile)
    assert math.log10(drawn(Parameter(loguniform=(1e-4, 1e2)), quantile)) == pytest.approx(-4 + 6 * quantile)


def test_whole_numbers_have_equal_shares():
    found = Counter(drawn(Parameter(integers=(1, 4)), (place + 0.5) / 1000) for place in range(1000))
    assert found == {1: 250, 2: 250, 3: 250, 4: 250}
    logs = [drawn(Parameter(logintegers=(1, 100)), (place + 0.5) / 1000) for place in range(1000)]
    assert (min(logs), max(logs)) == (1, 100)
    assert 0.4 < sum(value <= 10 for value in logs) / 1000 < 0.6


def test_a_grid_comes_whole_before_it_comes_again():
    space = {"a": Parameter(grid=[1, 2, 3]), "b": Parameter(grid=["x", "y"]), "c": Parameter(uniform=(0, 1))}
    assert grid_size(space) == 6
    first = [at_random(space, {}, 0, number) for number in range(6)]
    assert [(one["a"], one["b"]) for one in first] == list(product([1, 2, 3], ["x", "y"]))
    assert len({one["c"] for one in first}) == 1  # the same for the whole grid, so that only the grid differs
    assert at_random(space, {}, 0, 6)["c"] != first[0]["c"]


def test_conditions_see_the_runs_own_settings():
    space = {"rank": Parameter(integers=(2, 5), when={"form": ["bilinear", "attention"]})}
    assert "rank" in at_random(space, {"form": "attention"}, 0, 0)
    assert "rank" not in at_random(space, {"form": "full"}, 0, 0)


def test_the_ends_are_what_has_to_be_allowed():
    assert by_ends({"rank": SPACE["rank"], "form": SPACE["form"]}) == [
        ("rank", 2), ("rank", 5), ("form", "full"), ("form", "bilinear"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give one of choice, grid, .*none of them"),
        ({"choice": [1], "uniform": [0, 1]}, "choice and uniform is given"),
        ({"uniform": [1, 0]}, "is no range"),
        ({"loguniform": [0, 1]}, "must be positive"),
        ({"choice": []}, "at least 1"),
    ],
)
def test_what_is_no_parameter(given: dict, words: str):
    with pytest.raises(ValidationError, match=words):
        Parameter(**given)


def test_scales_of_pictures():
    assert Parameter(logintegers=(1, 9)).scale == "log"
    assert Parameter(choice=[1, 2]).scale == "linear"
    assert Parameter(choice=[True, False]).scale == "categorical"
