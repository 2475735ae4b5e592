"""An empty figure to draw on, and how it becomes a file."""

from pathlib import Path
from typing import TYPE_CHECKING

from grndist.errors import UserError
from grndist.files import written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDING = ".png"
DOTS_PER_INCH = 160


class PlotError(UserError):
    """What is asked for cannot be drawn."""


def new_figure(width: float | int, height: float | int) -> "Figure":
    """An empty figure of so many inches, whose parts make room for each other; of no display and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def refuse_ending(where: str) -> None:
    """Raise unless a figure can be written under this name; call it before long work.

    Raises:
        PlotError: it does not end in .png.
    """
    if not where.endswith(ENDING):
        raise PlotError(f"{where}: the figure is a PNG; give a name that ends in {ENDING}")


def write_figure(figure: "Figure", path: Path, overwrite: bool = False) -> None:
    """Write a figure as a PNG.

    Raises:
        UserError: `path` exists and `overwrite` is false, or its folder does not.
    """
    with written_aside(path, overwrite) as aside:
        figure.savefig(aside, dpi=DOTS_PER_INCH, format="png")
