"""Networks scored against reference networks: a row of panels for each reference, a panel for each measure.

A row of `table` is network x reference x lineage, with a column for each measure (missing where one does not apply) and
`baseline`, whether the network is one. A dashed line is chance. Colours are those of Okabe and Ito.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from grndist.plots.trials import DARK, GREY
from grndist.plots.writing import PlotError, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = (("#0072b2", "o"), ("#d55e00", "D"), ("#009e73", "s"))  # of lineages


def score_figure(table: pd.DataFrame, measures: Mapping[str, float]) -> "Figure":
    """Draw every network's and baseline's scores; networks from the top in the order of the table, baselines below.

    Args:
        table: the scores.
        measures: the columns to draw, those with any value, and what each is by chance.

    Raises:
        PlotError: there is nothing to draw.
    """
    shown = [name for name in measures if table[name].notna().any()]
    if not shown:
        raise PlotError("no measure has a value: nothing to draw")
    references = list(dict.fromkeys(table["reference"]))
    names = list(dict.fromkeys(table.sort_values("baseline", kind="stable")["network"]))
    looks = dict(zip(dict.fromkeys(table["lineage"]), LOOKS, strict=False))
    figure = new_figure(2.0 + 2.6 * len(shown), 0.9 + len(references) * (0.6 + 0.27 * len(names)))
    panels = figure.subplots(len(references), len(shown), sharey=True, sharex="col", squeeze=False)
    for row, reference in zip(panels, references, strict=True):
        own = table[table["reference"] == reference]
        for panel, measure in zip(row, shown, strict=True):
            _draw(panel, own, measure, names, looks)
            panel.axvline(measures[measure], color=DARK, lw=1, ls="--", zorder=1)
        row[0].set_yticks(range(len(names)), names, fontsize="small")
        row[0].set_ylim(len(names) - 0.5, -0.5)
        row[0].set_title(reference, loc="left", fontsize="medium", fontweight="bold")
    for panel, measure in zip(panels[-1], shown, strict=True):
        panel.set_xlabel(measure)
    handles: dict[str, Any] = {}
    for panel in panels.flat:
        handles |= dict(reversed(one) for one in zip(*panel.get_legend_handles_labels(), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw(
    panel: Any, table: pd.DataFrame, measure: str, names: list[str], looks: Mapping[str, tuple[str, str]]
) -> None:
    known = table[table[measure].notna()]
    lineages = list(dict.fromkeys(known["lineage"]))
    for at, lineage in enumerate(lineages):
        own = known[known["lineage"] == lineage]
        heights = own["network"].map(names.index).to_numpy(float) + 0.22 * (at - (len(lineages) - 1) / 2)
        colour, marker = looks[lineage]
        panel.plot(own[measure].to_numpy(float), heights, marker, color=colour, ms=5, label=lineage, zorder=3)
    for height, name in enumerate(names):
        is_baseline = bool(table.loc[table["network"] == name, "baseline"].all())
        panel.axhline(height, color=GREY, lw=8 if is_baseline else 0.8, alpha=0.35 if is_baseline else 1.0, zorder=0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.08)
