from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from grndist.config import Config, ConfigError, merge, parse_overrides, read_tree, validate


class Cat(Config):
    kind: Literal["cat"] = "cat"
    lives: int = Field(9, gt=0)


class Dog(Config):
    kind: Literal["dog"] = "dog"


class Home(Config):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    rooms: int = 1


def test_overrides_make_a_tree_and_the_last_one_wins():
    tree = parse_overrides(["a.b=1", "a.c=[1, 2]", "a.b=2", "d=x"])
    assert tree == {"a": {"b": 2, "c": [1, 2]}, "d": "x"}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("2E3", 2000.0), ("true", True), ("null", None), ("sigmoid", "sigmoid")]
)
def test_values_are_read_as_people_mean_them(text: str, value: object):
    assert parse_overrides([f"x={text}"]) == {"x": value}


@pytest.mark.parametrize("override", ["a.b", "=3"])
def test_an_override_without_key_or_value_is_refused(override: str):
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        parse_overrides([override])


TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
)


@given(st.dictionaries(st.sampled_from("abc"), TREES, max_size=3))
def test_merging_with_nothing_changes_nothing(tree: dict):
    assert merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


def test_unknown_keys_and_bad_values_are_all_named_with_the_nearest_key():
    with pytest.raises(ConfigError) as caught:
        validate(Home, {"pet": {"kind": "cat", "live": 3, "lives": 0}, "romes": 2}, "home.yaml")
    message = str(caught.value)
    assert "home.yaml is not valid" in message
    assert "pet.live: unknown key; did you mean 'pet.lives'? (got 3)" in message
    assert "pet.lives: Input should be greater than 0 (got 0)" in message
    assert "romes: unknown key; did you mean 'rooms'? (got 2)" in message


def test_a_missing_setting_is_named():
    with pytest.raises(ConfigError, match="pet: this setting is required"):
        validate(Home, {}, "home.yaml")


def test_settings_are_read_only():
    with pytest.raises(ValueError, match="frozen"):
        Home(pet=Cat()).rooms = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "words"),
    [("[1, 2]", "holds a list"), ("a: [", "not readable as YAML"), ("\xff\xfe", "not readable as YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, words: str):
    file = tmp_path / "run.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=words):
        read_tree(file)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        read_tree(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        read_tree(tmp_path)


class Pair(Config):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> "Pair":
        if self.low > self.high:
            raise ValueError("low is above high; lower it")
        return self


def test_settings_that_do_not_go_together_are_not_all_repeated():
    with pytest.raises(ConfigError) as caught:
        validate(Pair, {"low": 5, "high": 2}, "pair.yaml")
    assert str(caught.value) == "pair.yaml is not valid:\n  Value error, low is above high; lower it"
