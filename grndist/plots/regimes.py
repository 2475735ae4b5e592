"""The figure of CausalBench's regimes: every measure against the number of edges, and against the share of labels."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from grndist.plots.writing import PlotError, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {
    "mean_wasserstein": "mean Wasserstein distance",
    "rank_sum_precision": "rank-sum precision",
    "false_omission_rate": "false omission rate",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#404040")  # Okabe and Ito's
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def regimes_figure(bands: pd.DataFrame, k: int) -> "Figure":
    """Draw each measure against K at the largest fraction (above), and against the fraction at K = `k` (below).

    Bands are the spread (sd) over seeds. Up is better but for the false omission rate.

    Args:
        bands: a row for each model, fraction and K: model, fraction, K and, of each measure, its mean and NAME_sd.
        k: edges of the lower row.

    Raises:
        PlotError: there is no value to draw.
    """
    if bands[list(MEASURES)].isna().all(axis=None):
        raise PlotError("no model has a value at any number of edges: nothing to draw")
    figure = new_figure(12, 7)
    panels = figure.subplots(2, len(MEASURES), squeeze=False)
    largest = bands["fraction"].max()
    for column, (measure, title) in enumerate(MEASURES.items()):
        above, below = panels[0, column], panels[1, column]
        _draw(above, bands[bands["fraction"] == largest], "K", measure)
        _draw(below, bands[bands["K"] == k], "fraction", measure)
        above.set(xscale="log", xlabel="edges K", title=f"{title}\nfraction {largest:g}")
        below.set(xlabel="fraction of the labels trained on", title=f"at {k:,} edges")
        above.axvline(k, color="#a8a8a8", linewidth=0.8, linestyle=":")
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False)
    return figure


def curves_figure(curves: pd.DataFrame) -> "Figure":
    """Draw each measure of networks against K; up is better but for the false omission rate.

    Args:
        curves: a row for each network and K: network, K and the measures.

    Raises:
        PlotError: there is no value to draw.
    """
    if curves[list(MEASURES)].isna().all(axis=None):
        raise PlotError("no network has a value at any number of edges: nothing to draw")
    figure = new_figure(12, 4)
    table = curves.rename(columns={"network": "model"}).assign(**{f"{measure}_sd": 0.0 for measure in MEASURES})
    panels = figure.subplots(1, len(MEASURES))
    for panel, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        _draw(panel, table, "K", measure)
        panel.set(xscale="log", xlabel="edges K", title=title)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False)
    return figure


def _draw(panel: Any, table: pd.DataFrame, across: str, measure: str) -> None:
    """A line for each model, with its band; models keep their colour in all panels."""
    for number, (model, rows) in enumerate(table.groupby("model", sort=False)):
        part = rows.sort_values(across)
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
        panel.plot(part[across], part[measure], color=colour, marker=mark, markersize=4, label=str(model))
        low, high = part[measure] - part[f"{measure}_sd"], part[measure] + part[f"{measure}_sd"]
        panel.fill_between(part[across], low, high, color=colour, alpha=0.15, linewidth=0)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
