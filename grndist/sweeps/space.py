"""The search space of a sweep: which settings are tried, and what values they may take.

A trial's settings are `key.path: value`, in the grammar of run files. Random settings are a function of the sweep's
seed and the trial's number alone, so that a sweep that was interrupted asks for the same ones again.
"""

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Literal

from pydantic import Field, model_validator

from grndist.config import Config
from grndist.seeds import stream

Settings = dict[str, Any]  # key.path: value
Scale = Literal["linear", "log", "categorical"]
Value = str | float | int | bool | None

KINDS = ("choice", "grid", "uniform", "loguniform", "integers", "logintegers")


class Parameter(Config):
    """What values one setting may take: exactly one of the kinds, and on what condition it is set at all."""

    choice: list[Value] | None = Field(None, min_length=1, description="any of these, all equally likely")
    grid: list[Value] | None = Field(None, min_length=1, description="each of these in turn, with each of other grids")
    uniform: tuple[float, float] | None = Field(None, description="between two numbers")
    loguniform: tuple[float, float] | None = Field(None, description="between two positive numbers, on a log scale")
    integers: tuple[int, int] | None = Field(None, description="whole numbers from the first to the last")
    logintegers: tuple[int, int] | None = Field(None, description="the same on a log scale")
    when: dict[str, Value | list[Value]] = Field(
        {}, description="only where these settings have this value, or one of these; else the run's own value stands"
    )

    @model_validator(mode="after")
    def _has_one_kind(self) -> "Parameter":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(KINDS)}; {' and '.join(given) or 'none of them'} is given")
        if self.bounds is not None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"{self.kind}: [{low:g}, {high:g}] is no range; give the smaller number first")
            if self.kind.startswith("log") and low <= 0:
                raise ValueError(f"{self.kind}: [{low:g}, {high:g}] must be positive; use uniform or integers")
        return self

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> list[Value] | None:
        """Those of a choice or a grid."""
        return self.choice if self.choice is not None else self.grid

    @property
    def bounds(self) -> tuple[float | int, float | int] | None:
        """Those of a range, both inclusive."""
        found = (self.uniform, self.loguniform, self.integers, self.logintegers)
        return next((bounds for bounds in found if bounds is not None), None)

    @property
    def is_whole(self) -> bool:
        """Whether the range is of whole numbers."""
        return self.kind in ("integers", "logintegers")

    @property
    def scale(self) -> Scale:
        """How a picture shows it."""
        if self.values is not None:
            is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
            return "linear" if is_number else "categorical"
        return "log" if self.kind.startswith("log") else "linear"

    @property
    def ends(self) -> list[Value]:
        """The values at its ends, or all where they are listed."""
        if self.values is not None:
            return self.values
        assert self.bounds is not None
        low, high = self.bounds
        return [int(low), int(high)] if self.is_whole else [low, high]

    def applies(self, settings: Settings) -> bool:
        """Whether `settings`, those of the run and of what stands before in the space, fulfil the condition."""
        return all(
            settings.get(key) in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in self.when.items()
        )


Chooser = Callable[[str, Parameter], Value]  # who chooses a setting's value: chance, or a sampler that has seen others


def chosen(space: Mapping[str, Parameter], base: Mapping[str, Any], choose: Chooser) -> Settings:
    """Settings of one trial; `base` is what conditions see of the run itself, by `key.path`."""
    settings: Settings = {}
    for key, parameter in space.items():
        if parameter.applies({**base, **settings}):
            settings[key] = choose(key, parameter)
    return settings


def at_random(space: Mapping[str, Parameter], base: Mapping[str, Any], seed: int, number: int) -> Settings:
    """Settings of trial `number`: grids in turn, everything else by chance."""
    rest, place = divmod(number, grid_size(space))
    corner = _corner(space, place)

    def choose(key: str, parameter: Parameter) -> Value:
        if parameter.grid is not None:
            return corner[key]
        return drawn(parameter, stream(seed, "trial", rest, key).random())

    return chosen(space, base, choose)


def drawn(parameter: Parameter, quantile: float) -> Value:
    """The value at a quantile, in [0, 1), of the parameter's distribution."""
    values = parameter.values
    if values is not None:
        return values[int(quantile * len(values))]
    assert parameter.bounds is not None
    low, high = parameter.bounds
    wider = (low - 0.5, high + 0.5) if parameter.is_whole else (low, high)  # each whole number has its share
    if parameter.kind.startswith("log"):
        value = math.exp(math.log(wider[0]) + quantile * (math.log(wider[1]) - math.log(wider[0])))
    else:
        value = wider[0] + quantile * (wider[1] - wider[0])
    return min(max(round(value), int(low)), int(high)) if parameter.is_whole else value


def grid_size(space: Mapping[str, Parameter]) -> int:
    """How many combinations of grid values there are; 1 without a grid."""
    return math.prod(len(parameter.grid) for parameter in space.values() if parameter.grid is not None)


def _corner(space: Mapping[str, Parameter], place: int) -> Settings:
    """One combination of grid values; the last grid changes fastest."""
    grids = {key: parameter.grid for key, parameter in space.items() if parameter.grid is not None}
    return dict(zip(grids, list(product(*grids.values()))[place], strict=True))


def by_ends(space: Mapping[str, Parameter]) -> list[tuple[str, Value]]:
    """Every setting with every value that has to be allowed: the ends of ranges, all that are listed."""
    return [(key, value) for key, parameter in space.items() for value in parameter.ends]
