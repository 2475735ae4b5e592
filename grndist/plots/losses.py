"""How the losses of a run went."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from grndist.plots.latent import BLUE
from grndist.plots.writing import PlotError, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_figure(table: pd.DataFrame) -> "Figure":
    """Draw losses over steps, one panel each; what has no finite value is left out.

    Args:
        table: losses, a row for each step (the index) and a column for each loss; NaN where one was not computed.

    Raises:
        PlotError: there is nothing to draw.
    """
    losses = [name for name in table if np.isfinite(table[name]).any()]
    if not losses:
        raise PlotError("no loss has a finite value: nothing to draw")
    figure = new_figure(7, 0.6 + 1.6 * len(losses))
    panels = figure.subplots(len(losses), sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, losses, strict=True):
        values = table[name][np.isfinite(table[name])]
        panel.plot(values.index, values, color=BLUE, linewidth=1, marker="." if len(values) < 30 else "")
        panel.set_title(name, loc="left", fontsize="small")
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    return figure
