"""Layouts and figures, drawn with matplotlib. Knows nothing of models and runs.

`latent` is cells in two dimensions (UMAP through scanpy), `sweep` a sweep's trials, `writing` how a figure is kept.
"""

from grndist.plots.latent import Latent, colour_column, latent_figure, layout, principal_axes
from grndist.plots.writing import PlotError, refuse_ending, write_figure

__all__ = [
    "Latent",
    "PlotError",
    "colour_column",
    "latent_figure",
    "layout",
    "principal_axes",
    "refuse_ending",
    "write_figure",
]
