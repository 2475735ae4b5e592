"""What the figures of a sweep have in common: which trials have a value, how they are drawn, what they stand beside."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from grndist.plots.scales import Axis, axis_of_numbers, written

Direction = Literal["max", "min"]

BLUE, ORANGE, GREY, DARK = "#0072b2", "#d55e00", "#a8a8a8", "#404040"  # Okabe and Ito's blue and vermilion
DASHES = ((5, 2), (1, 1.5), (6, 2, 1, 2), (10, 3), (2, 4), (3, 1, 1, 1, 1, 1))  # of lines to compare with
MANY = 40  # trials, beyond which they are drawn finer
FAR = 2.0  # interquartile ranges below the middle half: worse trials are drawn at the edge
MARGIN = 0.06  # of an axis, beyond the values


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of a sweep as a figure needs them."""

    table: pd.DataFrame
    objective: str
    direction: Direction
    lines: Mapping[str, float]

    @cached_property
    def value(self) -> Float64[np.ndarray, " trials"]:
        """The objective; NaN where there is none, or the trial has failed."""
        values = self.table[self.objective].to_numpy(np.float64)
        failed = (self.table["status"] == "failed").to_numpy()
        return np.where(np.isfinite(values) & ~failed, values, np.nan)

    @cached_property
    def known(self) -> Bool[np.ndarray, " trials"]:
        """Whether each trial has a value."""
        return np.isfinite(self.value)

    @cached_property
    def finished(self) -> Bool[np.ndarray, " trials"]:
        """Whether it has a value and was not stopped early."""
        return self.known & (self.table["status"] == "finished").to_numpy()

    @cached_property
    def spread(self) -> Float64[np.ndarray, " trials"]:
        """Standard deviation over replicates; 0 where there is none."""
        name = f"{self.objective} sd"
        if name not in self.table:
            return np.zeros(len(self.table))
        return np.nan_to_num(self.table[name].to_numpy(np.float64), posinf=0.0)

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.direction == "max" else -1

    @cached_property
    def best(self) -> int | None:
        """Position of the best finished trial, the first of equal ones."""
        if not self.finished.any():
            return None
        return int(np.argmax(np.where(self.finished, self.sign * self.value, -np.inf)))

    @property
    def best_in_words(self) -> str:
        """Its number and value."""
        if self.best is None:
            return "no trial has finished"
        spread = f" ± {written(self.spread[self.best], 2)}" if self.spread[self.best] else ""
        return f"best: trial {self.table['trial'].iloc[self.best]}, {written(self.value[self.best])}{spread}"

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest value, but for those of trials that are far worse than most."""
        known = self.value[self.known]
        first, third = np.quantile(known, [0.25, 0.75])
        low, high = float(known.min()), float(known.max())
        if self.direction == "max":
            return max(low, float(first - FAR * (third - first))), high
        return low, min(high, float(third + FAR * (third - first)))

    @property
    def goodness(self) -> Float64[np.ndarray, " trials"]:
        """From 0, the worst within the bounds, to 1, the best; NaN without a value."""
        low, high = self.bounds
        share = (np.clip(self.value, low, high) - low) / (high - low) if high > low else self.value * 0 + 1
        return share if self.direction == "max" or high == low else 1 - share

    @cached_property
    def axis(self) -> Axis:
        """Of the objective: its bounds, and what it is compared with."""
        ends = [*self.bounds, *self.lines.values()]
        shown = axis_of_numbers(pd.Series(ends))
        return Axis(np.clip(self.value, min(ends), max(ends)), shown.ticks, shown.labels, shown.low, shown.high)

    @property
    def is_beyond(self) -> Bool[np.ndarray, " trials"]:
        """Whether a trial is so much worse than most that it is drawn at the edge."""
        return self.known & (self.axis.place != self.value)

    @property
    def name(self) -> str:
        """The objective, and whether more is better."""
        return f"{self.objective} ({'more' if self.direction == 'max' else 'less'} is better)"


def draw_points(panel: Any, place: Float64[np.ndarray, " trials"], trials: Trials) -> None:
    """Trials by their place along an axis and their objective, the best one marked."""
    size = 4.0 if len(trials.table) > MANY else 6.0
    stopped, beyond = trials.known & ~trials.finished, trials.is_beyond
    plain = trials.finished & ~beyond
    bars = plain & (trials.spread > 0) & np.isfinite(place)
    if bars.any():
        panel.errorbar(place[bars], trials.value[bars], trials.spread[bars], fmt="none", ecolor=BLUE, alpha=0.45, lw=1)
    look: dict[str, Any] = {"linestyle": "", "markersize": size, "zorder": 3}
    for chosen, label, mark, face in (
        (plain, "finished", "o", BLUE),
        (stopped & ~beyond, "stopped early", "o", "white"),
        (beyond, "far worse", "v" if trials.direction == "max" else "^", "white"),
    ):
        shown = chosen & np.isfinite(place)
        if shown.any():
            panel.plot(
                place[shown], trials.axis.place[shown], marker=mark, label=label, markerfacecolor=face,
                markeredgecolor=BLUE, alpha=0.85, **look,
            )  # fmt: skip
    if trials.best is not None and np.isfinite(place[trials.best]):
        panel.plot(
            place[trials.best], trials.value[trials.best], marker="*", color=ORANGE, markersize=size * 2.2, zorder=5,
            linestyle="", markeredgecolor="white", markeredgewidth=0.7, label=trials.best_in_words,
        )  # fmt: skip


def draw_lines(panel: Any, lines: Mapping[str, float]) -> None:
    """What trials are compared with, as level lines."""
    for number, (name, value) in enumerate(lines.items()):
        dashes = (0, DASHES[number % len(DASHES)])
        panel.axhline(value, color=DARK, lw=1.1, ls=dashes, zorder=1, label=f"{name}: {written(value)}")


def limit(panel: Any, trials: Trials) -> None:
    """Show the objective's axis, and the bars that are within twice its length."""
    low, high = trials.axis.low, trials.axis.high
    near = trials.finished & ~trials.is_beyond
    ends = [trials.value[near] - trials.spread[near], trials.value[near] + trials.spread[near]]
    length = high - low
    low = max(min([low, *ends[0]]), low - length / 2)
    high = min(max([high, *ends[1]]), high + length / 2)
    panel.set_ylim(low - MARGIN * (high - low), high + MARGIN * (high - low))


def legend(figure: Any, panels: list[Any]) -> None:
    """One legend below all panels: each mark once."""
    found: dict[str, Any] = {}
    for panel in panels:
        for mark, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, mark)
    columns = min(len(found), 4 if figure.get_figwidth() > 7 else 2)
    figure.legend(
        found.values(),
        found,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize="small",
        handlelength=2.6,
    )


def nothing(figure: Any, panel: Any, objective: str) -> Any:
    """The figure of a sweep in which no trial has a value."""
    panel.text(0.5, 0.5, f"no trial has a value of {objective} yet", ha="center", va="center", color=DARK)
    for one in figure.axes:
        one.set_axis_off()
    return figure
