"""Layouts and figures, drawn with matplotlib. Knows nothing of models and runs.

`latent` is cells in two dimensions (UMAP through scanpy), `losses` how training went, `sweep` the trials of a sweep,
`scores` networks against references, `regimes` against interventions, `comparison` methods beside each other, `writing`
how a figure is kept.
"""

from grndist.plots.comparison import comparison_figure
from grndist.plots.latent import Latent, colour_column, latent_figure, layout, principal_axes
from grndist.plots.losses import loss_figure
from grndist.plots.regimes import curves_figure, regimes_figure
from grndist.plots.scores import score_figure
from grndist.plots.writing import PlotError, refuse_ending, write_figure

__all__ = [
    "Latent",
    "PlotError",
    "colour_column",
    "comparison_figure",
    "curves_figure",
    "latent_figure",
    "layout",
    "loss_figure",
    "principal_axes",
    "refuse_ending",
    "regimes_figure",
    "score_figure",
    "write_figure",
]
