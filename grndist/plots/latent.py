"""Cells in two dimensions: UMAPs through scanpy, of their expression and of a latent space."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import sparse

from grndist.genes import some
from grndist.plots.writing import PlotError, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEIGHBOURS = 15  # of a point in a UMAP; scanpy's default
COMPONENTS = 50  # principal ones that a UMAP is made of; scanpy's default
LABELS = 18  # told apart by colour
MANY = 1000  # cells; the hairs of more are a felt
HAIRY = 200  # of many cells, those that have hairs
GREY, BLUE = "#c8c8c8", "#3b6ea5"

Values: TypeAlias = Float[np.ndarray, "cells genes"] | sparse.csr_matrix
Positions: TypeAlias = Float[np.ndarray, "cells 2"]


def principal_axes(values: Values, seed: int) -> Float[np.ndarray, "genes d"]:
    """The directions in which cells vary most, at most 50; of 50 genes or fewer, the genes themselves.

    Raises:
        PlotError: no gene varies.
    """
    import anndata
    import scanpy

    if not _varies(values):
        raise PlotError(
            f"none of the {values.shape[1]:,} genes varies over the {values.shape[0]:,} cells: nothing to lay out"
        )
    if values.shape[1] <= COMPONENTS:
        return np.eye(values.shape[1], dtype=np.float32)
    data = anndata.AnnData(values)
    scanpy.pp.pca(data, n_comps=min(COMPONENTS, len(data.obs) - 1), svd_solver="arpack", random_state=seed)
    return data.varm["PCs"]


def layout(points: Float[np.ndarray, "cells d"], seed: int) -> Positions:
    """Where UMAP puts the points, by their 15 nearest neighbours and scanpy's defaults; a function of the seed.

    It changes how many threads PyTorch uses.

    Raises:
        PlotError: there are fewer than 16 points.
    """
    import anndata
    import scanpy

    if len(points) <= NEIGHBOURS:
        raise PlotError(f"a UMAP needs {NEIGHBOURS + 1} cells or more, and there are {len(points)}")
    data = anndata.AnnData(points)
    # the exact neighbours: the approximate ones that scanpy takes beyond 8,192 points fail with newer SciPy
    scanpy.pp.neighbors(data, NEIGHBOURS, use_rep="X", transformer="sklearn", random_state=seed)
    scanpy.tl.umap(data, random_state=seed)
    return data.obsm["X_umap"]


def colour_column(obs: pd.DataFrame, asked: str | None) -> str | None:
    """The column that cells are coloured by: the one asked for, else the perturbation if there are several.

    Raises:
        PlotError: there is no such column.
    """
    if asked is None:
        return "perturbation" if obs["perturbation"].nunique() > 1 else None
    if asked not in obs:
        raise PlotError(
            f"--colour {asked}: the table of cells has the columns {some(list(obs), 20)}; choose one of them"
        )
    return asked


@dataclass(frozen=True)
class Latent:
    """Positions of cells: by their expression, in the latent space, and there of every sample of theirs."""

    expression: Positions
    latent: Positions
    samples: tuple[Positions, ...]


def latent_figure(places: Latent, obs: pd.DataFrame, colour: str | None) -> "Figure":
    """A matplotlib figure: expression on the left, the latent space on the right, coloured by `colour_column`.

    On the right the samples of each cell are pale points, and a cell is joined to its samples by hairs: every cell of
    up to 1,000, of more the first 200, in black.

    Numbers are coloured along a scale, missing ones grey. Labels have a colour each: up to 18, of more those 17 of most
    cells, and the others are grey together.

    Raises:
        PlotError: there is no such column.
    """
    figure = new_figure(13.0, 6.2)
    left, right = figure.subplots(1, 2)
    column = colour_column(obs, colour)
    colours = _colours(None if column is None else obs[column], len(obs))
    size = float(np.clip(30_000 / len(obs), 2, 24))  # square points
    _draw_cells(left, places.expression, colours, size)
    _draw_samples(right, places, colours, size)
    _draw_cells(right, places.latent, colours, size)
    left.set_title("Expression")
    right.set_title(f"Latent space z, {len(places.samples)} sample{'s' * (len(places.samples) > 1)} a cell")
    _explain(figure, [left, right], colours)
    return figure


@dataclass(frozen=True)
class _Colours:
    """The colour of every cell, and what is said of it beside the panels."""

    title: str
    of_cell: Float[np.ndarray, "cells 4"]  # RGBA
    is_grey: Bool[np.ndarray, " cells"]
    legend: dict[str, Any]  # colour of each label
    scale: Any = None  # matplotlib's, of numbers


def _colours(values: pd.Series | None, n_cells: int) -> _Colours:
    if values is None:
        return _Colours("", _rgba([BLUE] * n_cells), np.zeros(n_cells, dtype=bool), {})
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return _of_numbers(values) if is_number else _of_labels(values)


def _of_numbers(values: pd.Series) -> _Colours:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    numbers = values.to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(numbers)
    low, high = (numbers[known].min(), numbers[known].max()) if known.any() else (0.0, 1.0)
    scale = ScalarMappable(Normalize(low, high), colormaps["viridis"])
    of_cell = scale.to_rgba(np.where(known, numbers, low))
    of_cell[~known] = _rgba([GREY])
    return _Colours(str(values.name), of_cell, ~known, {} if known.all() else {"missing": GREY}, scale)


def _of_labels(values: pd.Series) -> _Colours:
    labels = values.astype("category")
    counts = labels.value_counts(sort=False)
    counts = counts[counts > 0].sort_values(ascending=False, kind="stable")
    most = counts.index[: LABELS if len(counts) <= LABELS else LABELS - 1]
    kept = labels.cat.categories[labels.cat.categories.isin(most)]
    palette = _palette(len(kept))
    place = kept.get_indexer(labels.astype(kept.dtype))  # -1: another label, or none
    rest = [f"{len(counts) - len(kept):,} other labels"] * (len(kept) < len(counts))
    rest += ["missing"] * bool(labels.isna().any())
    legend = dict(zip(map(str, kept), palette, strict=True)) | ({" and ".join(rest): GREY} if rest else {})
    return _Colours(str(values.name), _rgba([*palette, GREY])[place], place < 0, legend)


def _palette(number: int) -> list[Any]:
    """So many colours, none of them grey."""
    from matplotlib import colormaps

    colours = colormaps["tab10" if number < 10 else "tab20"](range(10 if number < 10 else 20))
    return [colour for colour in colours if len(set(colour[:3])) > 1][:number]


def _rgba(colours: list[Any]) -> Float[np.ndarray, "colours 4"]:
    from matplotlib.colors import to_rgba_array

    return to_rgba_array(colours)


def _draw_cells(panel: Any, places: Positions, colours: _Colours, size: float) -> None:
    order = np.argsort(~colours.is_grey, kind="stable")  # grey ones below
    panel.scatter(*places[order].T, s=size, c=colours.of_cell[order], linewidths=0, zorder=3)
    panel.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", box_aspect=1)


def _draw_samples(panel: Any, places: Latent, colours: _Colours, size: float) -> None:
    from matplotlib.collections import LineCollection

    many = len(places.latent) > MANY
    hairy = slice(HAIRY if many else None)
    look: dict[str, Any] = (
        {"colors": "black", "alpha": 0.7, "zorder": 4} if many else {"colors": colours.of_cell, "alpha": 0.4}
    )
    for sample in places.samples:
        panel.scatter(*sample.T, s=size / 2, c=colours.of_cell, alpha=0.3, linewidths=0, zorder=1)
        hairs = np.stack([places.latent, sample], axis=1)[hairy]
        panel.add_collection(LineCollection(list(hairs), linewidths=0.5, **look))
    which = f" ({HAIRY} of {len(places.latent):,} cells)" if many else ""
    panel.figure.supxlabel(f"Latent space: samples are pale, lines join them to their cell{which}", fontsize="small")


def _explain(figure: Any, panels: list[Any], colours: _Colours) -> None:
    """A colour bar, a legend, both or neither, right of the panels."""
    from matplotlib.lines import Line2D

    if colours.scale is not None:
        figure.colorbar(colours.scale, ax=panels, label=colours.title, shrink=0.7, aspect=30)
    if colours.legend:
        marks = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in colours.legend.values()]
        title = colours.title if colours.scale is None else None
        figure.legend(marks, list(colours.legend), title=title, loc="outside right center", frameon=False)


def _varies(values: Values) -> bool:
    low, high = values.min(axis=0), values.max(axis=0)
    return (low != high).nnz > 0 if sparse.issparse(values) else bool((low != high).any())
