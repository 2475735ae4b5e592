"""Methods beside each other: a panel for each data set, a row for each method, a point for each seed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from grndist.plots.latent import BLUE
from grndist.plots.trials import DARK, GREY, ORANGE
from grndist.plots.writing import PlotError, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4  # panels beside each other


def comparison_figure(table: pd.DataFrame, methods: Sequence[str], chance: float | None, name: str) -> "Figure":
    """Draw every seed as a point and their mean as a bar; the best mean of a panel is orange.

    Args:
        table: columns panel, method and value, a row for each seed.
        methods: from top to bottom; one without a value in a panel has an empty row there.
        chance: drawn as a line, where there is one value for all panels.
        name: of the value, for the axis; more is better.

    Raises:
        PlotError: there is nothing to draw.
    """
    if table.empty:
        raise PlotError("no method has a value: nothing to draw")
    panels = list(dict.fromkeys(table["panel"]))
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    figure = new_figure(2.2 + 2.5 * across, down * (0.8 + 0.22 * len(methods)) + 0.3)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for panel, title in zip(grid.flat, panels, strict=False):
        _draw(panel, table[table["panel"] == title], methods)
        panel.set_title(title, loc="left", fontsize="small")
        if chance is not None:
            panel.axvline(chance, color=DARK, linewidth=0.8, linestyle="--")
    for panel in list(grid.flat)[len(panels) :]:
        panel.set_visible(False)
    first = grid[0, 0]
    first.set_yticks(range(len(methods)), methods, fontsize="small")
    first.set_ylim(len(methods) - 0.5, -0.5)
    line = "" if chance is None else f"; dashed: chance ({chance:g})"
    figure.supxlabel(f"{name}: bars are means over seeds, points seeds{line}", fontsize="small")
    return figure


def _draw(panel: "Axes", table: pd.DataFrame, methods: Sequence[str]) -> None:
    means = table.groupby("method")["value"].mean()
    for at, method in enumerate(methods):
        if method in means:
            colour = ORANGE if means[method] == means.max() else BLUE
            values = table.loc[table["method"] == method, "value"]
            panel.barh(at, means[method], color=colour, alpha=0.55, height=0.7)
            panel.plot(values, [at] * len(values), "o", color=DARK, markersize=2.5)
    panel.grid(axis="x", color=GREY, alpha=0.4)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize="small")
    panel.spines[["top", "right"]].set_visible(False)
