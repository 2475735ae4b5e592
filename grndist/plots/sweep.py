"""Figures of a sweep, each of one table of trials.

A row of `table` is a trial: `trial` (its number), a column for each parameter (missing where a trial has none), the
objective (mean over replicates; NaN without), its spread `OBJECTIVE sd`, `status` ("finished", "stopped" early by a
scheduler, "failed") and `seconds` since the sweep began. `lines` are values to compare with: baselines, the default.
Colours are those of Okabe and Ito and of cividis, which colour-blind people tell apart. A trial that is far worse than
most is drawn at the edge, so that the others can be told apart.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from grndist.plots.scales import Axis, Scale, axis_of, titles
from grndist.plots.trials import (
    DARK,
    GREY,
    MANY,
    ORANGE,
    Direction,
    Trials,
    draw_lines,
    draw_points,
    legend,
    limit,
    nothing,
)
from grndist.plots.writing import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parameters = Mapping[str, Scale]
Lines = Mapping[str, float]

ACROSS = 4  # panels beside each other
ABSENT = -0.13  # where the lines of trials without a parameter pass, below its axis


def parallel_coordinates(
    table: pd.DataFrame, parameters: Parameters, objective: str, direction: Direction, lines: Lines
) -> "Figure":
    """A line for each trial through its parameters to its objective, by which it is coloured; the best one on top.

    A parameter that a trial does not have is "none", below the axis. Trials without a value are grey.
    """
    trials = Trials(table, objective, direction, lines)
    axes = [axis_of(table[key], scale) for key, scale in parameters.items()]
    figure = new_figure(max(1.5 * (len(axes) + 1) + 1.0, 6.0), 4.8)
    panel = figure.subplots()
    if not trials.known.any():
        return nothing(figure, panel, objective)
    _draw_trials(panel, axes, trials)
    for at, (axis, title) in enumerate(zip(axes, titles(parameters).values(), strict=True)):
        _draw_axis(panel, at, axis, title)
    _draw_goal(panel, len(axes), trials)
    panel.set(xlim=(-0.45, len(axes) + (1.15 if lines else 0.45)), ylim=(-0.17, 1.03), xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    figure.suptitle(trials.best_in_words, fontsize="medium", color=ORANGE)
    return figure


def objective_over_time(
    table: pd.DataFrame, parameters: Parameters, objective: str, direction: Direction, lines: Lines
) -> "Figure":
    """Every trial when it ended, the best value of a finished one so far, and what to compare with as level lines.

    Bars are the spread over replicates. Trials without a value are crosses at the lower edge. The parameters are not
    drawn.
    """
    trials = Trials(table, objective, direction, lines)
    figure = new_figure(8.5, 5.0)
    panel = figure.subplots()
    if not trials.known.any():
        return nothing(figure, panel, objective)
    unit, name = _time_unit(float(np.nanmax(table["seconds"].to_numpy(np.float64))))
    time = table["seconds"].to_numpy(np.float64) / unit
    draw_points(panel, time, trials)
    _draw_best_so_far(panel, time, trials)
    without = time[~trials.known & np.isfinite(time)]
    if len(without):
        panel.plot(
            without, np.full(len(without), 0.02), "x", color=DARK, ms=5, transform=panel.get_xaxis_transform(),
            label="failed or not measured",
        )  # fmt: skip
    draw_lines(panel, lines)
    panel.set(xlabel=f"{name} since the sweep began", ylabel=trials.name)
    limit(panel, trials)
    panel.set_xlim(left=0.0)
    _plain(panel)
    legend(figure, [panel])
    return figure


def parameters_against_objective(
    table: pd.DataFrame, parameters: Parameters, objective: str, direction: Direction, lines: Lines
) -> "Figure":
    """A panel for each parameter: its value against the objective, with the spread over replicates; the best is marked.

    Trials that do not have a parameter are left out of its panel, which says how many there are; a category is "none".
    """
    trials = Trials(table, objective, direction, lines)
    across = min(max(len(parameters), 1), ACROSS)
    down = -(-max(len(parameters), 1) // across)
    figure = new_figure(max(2.8 * across + 0.8, 5.5), 2.6 * down + 1.1)
    panels = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    if not trials.known.any() or not parameters:
        return nothing(figure, panels[0], objective)
    names = titles(parameters)
    for panel, (key, scale) in zip(panels, parameters.items(), strict=False):
        _draw_panel(panel, table[key], scale, names[key], trials)
    for panel in panels[len(parameters) :]:
        panel.set_axis_off()
    figure.supylabel(trials.name, fontsize="medium")
    legend(figure, panels[: len(parameters)])
    return figure


def _draw_panel(panel: Any, values: pd.Series, scale: Scale, title: str, trials: Trials) -> None:
    is_category = scale == "categorical"
    axis = axis_of(values.astype(object).where(values.notna(), "none") if is_category else values, scale)
    place = axis.place + (_beside(len(values)) if is_category else 0.0)
    draw_points(panel, place, trials)
    draw_lines(panel, trials.lines)
    crowded = len(axis.ticks) > 4 and sum(map(len, axis.labels)) > 24
    panel.set_xticks(axis.ticks, axis.labels, rotation=35 if crowded else 0, ha="right" if crowded else "center")
    room = 0.5 if is_category else 0.06 * (axis.high - axis.low)
    panel.set_xlim(axis.low - room, axis.high + room)
    absent = int((trials.known & np.isnan(axis.place)).sum())
    said = f"\n{absent} trial{'s do' if absent > 1 else ' does'} not have it" if absent else ""
    panel.set_xlabel(title + said, fontsize="small")
    panel.tick_params(labelsize="small")
    limit(panel, trials)
    _plain(panel)


def _beside(number: int) -> Float64[np.ndarray, " trials"]:
    """Places beside a category, so that trials do not hide each other: the same every time, spread evenly."""
    return (np.arange(number) * 0.6180339887 % 1 - 0.5) * 0.5


def _plain(panel: Any) -> None:
    panel.spines[["top", "right"]].set_visible(False)


def _draw_best_so_far(panel: Any, time: Float64[np.ndarray, " trials"], trials: Trials) -> None:
    able = trials.finished & np.isfinite(time)
    if not able.any():
        return
    order = np.flatnonzero(able)[np.argsort(time[able], kind="stable")]
    best = trials.sign * np.maximum.accumulate(trials.sign * trials.axis.place[order])
    end = float(np.nanmax(time))
    panel.step(
        [*time[order], end], [*best, best[-1]], where="post", color=ORANGE, lw=1.8, label="best so far", zorder=2
    )


def _time_unit(longest: float) -> tuple[float, str]:
    for unit, name in ((3600.0, "hours"), (60.0, "minutes")):
        if longest >= 2 * unit:
            return unit, name
    return 1.0, "seconds"


def _draw_trials(panel: Any, axes: list[Axis], trials: Trials) -> None:
    """The trials' lines: those without a value below, then from worse to better, the best one on top."""
    from matplotlib import colormaps
    from matplotlib.collections import PathCollection

    shares = [np.where(np.isnan(axis.place), ABSENT, axis.share) for axis in axes]
    heights = np.stack([*shares, trials.axis.share], axis=1) if axes else trials.axis.share[:, None]
    goodness = np.where(trials.known, trials.goodness, -1.0)
    order = np.argsort(goodness, kind="stable")
    width = 0.9 if len(order) > MANY else 1.5
    for number in order:
        known, is_best = trials.known[number], number == trials.best
        colour = colormaps["cividis_r"](float(goodness[number])) if known else GREY
        path = _curve(heights[number] if known else heights[number, :-1])
        look = {"edgecolors": ORANGE if is_best else colour, "linewidths": 2.8 if is_best else width}
        line = PathCollection([path], facecolors="none", alpha=1.0 if is_best else 0.75 if known else 0.5, **look)
        line.set_zorder(4 if is_best else 2 if known else 1)
        panel.add_collection(line)


def _curve(heights: Float64[np.ndarray, " axes"]) -> Any:
    """A smooth line through a height at each of the axes 0, 1, 2, ..., level where it meets them."""
    from matplotlib.path import Path

    points = [(0.0, float(heights[0]))] if len(heights) else []
    for at in range(1, len(heights)):
        before, here = float(heights[at - 1]), float(heights[at])
        points += [(at - 0.6, before), (at - 0.4, here), (float(at), here)]
    codes = [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)][: len(points)]
    return Path(points or np.empty((0, 2)), codes or None)


def _draw_axis(panel: Any, at: int, axis: Axis, title: str, is_goal: bool = False) -> None:
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
    panel.plot([at, at], [0, 1], color=DARK, lw=1, zorder=5)
    for share, label in zip(axis.tick_shares, axis.labels, strict=True):
        panel.plot([at - 0.025, at], [share, share], color=DARK, lw=1, zorder=5)
        panel.text(at - 0.05, share, label, ha="right", va="center", fontsize="small", zorder=6, bbox=box)
    if np.isnan(axis.place).any() and not is_goal:
        panel.text(
            at - 0.05, ABSENT, "none", ha="right", va="center", fontsize="small", style="italic", zorder=6, bbox=box
        )
    panel.annotate(title, (at, 1.03), ha="center", va="bottom", fontsize="small", annotation_clip=False)


def _draw_goal(panel: Any, at: int, trials: Trials) -> None:
    """The objective's axis, coloured as the lines are, and what to compare with beside it."""
    from matplotlib import colormaps

    length, (low, high) = trials.axis.high - trials.axis.low, trials.bounds
    if high > low:
        bottom, top = (low - trials.axis.low) / length, (high - trials.axis.low) / length
        shade = np.linspace(0, 1, 256)[:: trials.sign, None]
        look = {"origin": "lower", "aspect": "auto", "cmap": colormaps["cividis_r"], "vmin": 0, "vmax": 1, "zorder": 5}
        panel.imshow(shade, extent=(at, at + 0.07, bottom, top), **look)
    better = f"{trials.objective}\n({'more' if trials.sign > 0 else 'less'} is better)"
    _draw_axis(panel, at, trials.axis, better, is_goal=True)
    named = sorted(trials.lines.items(), key=lambda line: line[1])
    shares = [(value - trials.axis.low) / length for _, value in named]
    for (name, _), share, height in zip(named, shares, _apart(shares), strict=True):
        panel.plot([at + 0.07, at + 0.12, at + 0.17], [share, share, height], color=DARK, lw=1, zorder=5)
        panel.text(at + 0.19, height, name, ha="left", va="center", fontsize="small", color=DARK)


def _apart(shares: list[float], least: float = 0.055) -> list[float]:
    """Heights of ascending labels, each at least so far above the one before, as near to their own as that allows."""
    heights: list[float] = []
    for share in shares:
        heights.append(max(share, heights[-1] + least) if heights else share)
    over = max(heights[-1] - 1.0, 0.0) if heights else 0.0
    for at in range(len(heights) - 1, -1, -1):
        ceiling = 1.0 if at == len(heights) - 1 else heights[at + 1] - least
        heights[at] = min(heights[at], ceiling) if over else heights[at]
    return heights
