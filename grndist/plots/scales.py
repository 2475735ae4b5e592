"""Where a parameter's values stand along an axis, and what is written beside it: numbers, powers, categories."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64

Scale = Literal["linear", "log", "categorical"]

TICKS = 5  # about so many on an axis of numbers
LETTERS = 14  # of a category


@dataclass(frozen=True)
class Axis:
    """One parameter of all trials; NaN where a trial does not have it."""

    place: Float64[np.ndarray, " trials"]
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    low: float
    high: float

    @property
    def share(self) -> Float64[np.ndarray, " trials"]:
        """Places between 0, the low end, and 1."""
        return (self.place - self.low) / (self.high - self.low)

    @property
    def tick_shares(self) -> list[float]:
        """The same of the ticks."""
        return [(tick - self.low) / (self.high - self.low) for tick in self.ticks]


def axis_of(values: pd.Series, scale: Scale) -> Axis:
    """The axis of a parameter: its values, their logarithms, or one place for each category, in order."""
    return _of_categories(values) if scale == "categorical" else axis_of_numbers(pd.to_numeric(values), scale)


def axis_of_numbers(values: pd.Series, scale: Literal["linear", "log"] = "linear") -> Axis:
    """The axis of numbers; what is missing or not finite has no place."""
    from matplotlib.ticker import MaxNLocator

    numbers = values.to_numpy(np.float64, na_value=np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.log10(numbers) if scale == "log" else numbers
    place = np.where(np.isfinite(place), place, np.nan)
    known = place[np.isfinite(place)]
    if not len(known):
        return Axis(place, (), (), 0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
        only = float(known[0])
        return Axis(place, (only,), (written(10**only if scale == "log" else only),), low, high)
    if scale == "log" and (powers := _powers(low, high)):
        return Axis(place, tuple(map(math.log10, powers)), tuple(map(written, powers)), low, high)
    ends = (10**low, 10**high) if scale == "log" else (low, high)
    numbers = [float(tick) for tick in MaxNLocator(TICKS).tick_values(*ends) if ends[0] <= tick <= ends[1]]
    ticks = [math.log10(tick) for tick in numbers] if scale == "log" else numbers
    return Axis(place, tuple(ticks), tuple(map(written, numbers)), low, high)


def _powers(low: float, high: float) -> list[float]:
    """Round numbers between two logarithms: powers of ten, or with 3 times or with 2 and 5 times them; none if few."""
    for mantissas in ((1,), (1, 3), (1, 2, 5)):
        found = [m * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for m in mantissas]
        found = [value for value in found if low - 1e-9 <= math.log10(value) <= high + 1e-9]
        if len(found) >= 3:
            return found[:: -(-len(found) // (TICKS + 2))]
    return []


def _of_categories(values: pd.Series) -> Axis:
    known = values[~values.isna()]
    names = sorted({_name(value) for value in known}, key=_by_number)
    index = {name: float(at) for at, name in enumerate(names)}
    place = np.array(
        [np.nan if missing else index[_name(value)] for value, missing in zip(values, values.isna(), strict=True)]
    )
    labels = tuple(name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names)
    last = float(max(len(names) - 1, 0))
    return Axis(place.astype(np.float64), tuple(index.values()), labels, *((0.0, last) if last else (-0.5, 0.5)))


def _name(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return written(float(value)) if isinstance(value, int | float | np.number) else str(value)


def _by_number(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def written(number: float, digits: int = 4) -> str:
    """A number in few letters: 0.25, 12,000, 1e-5."""
    if number == 0 or 1e-3 <= abs(number) < 1e4:
        return f"{number:.{digits}g}"
    if 1e4 <= abs(number) < 1e6:
        return f"{number:,.0f}"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def titles(parameters: Sequence[str] | Mapping[str, Scale]) -> dict[str, str]:
    """What each parameter is called: the last word of its key, and below it the rest."""
    return {key: f"{last}\n({rest})" if rest else last for key in parameters for rest, _, last in [key.rpartition(".")]}
