"""Stored values -> the expression a model sees, on the fly and never logged twice.

The plain definitions, in NumPy and SciPy; the loader's compiled loops compute the same.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from scipy import sparse

from grndist.config import Config
from grndist.data.store import BLOCK, Store
from grndist.data.view import View, whole
from grndist.progress import track

Moments = tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]

ROUNDING = 1e-11  # a variance below this share of the mean square is the rounding of two equal sums


class ExpressionConfig(Config):
    """Which values a model is given."""

    transform: Literal["none", "log1p", "clr"] = Field(
        "log1p",
        description="none: as stored (raw counts); log1p: counts scaled to the median library size, then log(1 + x); "
        "clr: Seurat's centred log ratio over all genes of each cell. Values that are not counts are never transformed",
    )
    cell_minmax: bool = Field(
        False, description="then scale every cell to [0, 1] by its own smallest and largest value"
    )
    zscore: Literal["none", "all", "nonzero"] = Field(
        "none",
        description="then subtract each gene's mean and divide by its standard deviation, taken over all cells or over "
        "those in which it is not zero (DeepSEM); every entry is scaled either way",
    )
    clip: float | None = Field(None, gt=0, description="largest z-score, either sign; DeepSEM: 10")


def cell_scale(
    values: sparse.csr_matrix,
    totals: Float[np.ndarray, " cells"],
    seen: Store | View,
    config: ExpressionConfig,
) -> Float[np.ndarray, " cells"] | None:
    """What each cell's counts are multiplied by before log(1 + x); None where values stay as they are.

    log1p: median total / total (0 for a cell without counts). clr, after Seurat's `NormalizeData(method = "CLR",
    margin = 2)`: 1 / exp(sum over genes of log(1 + x) / number of genes), over all genes of the store.

    Args:
        values: rows of the store, all genes.
        totals: their totals over all genes.
        seen: knows the state of the values and the median total.
        config: what to do.
    """
    if seen.state != "counts" or config.transform == "none":
        return None
    if config.transform == "log1p":
        return np.divide(seen.median_total, totals, out=np.zeros_like(totals), where=totals > 0)
    logs = np.bincount(_row_of_value(values), np.log1p(values.data, dtype=np.float64), minlength=values.shape[0])
    return np.exp(-logs / values.shape[1])


def expression(
    values: sparse.csr_matrix, totals: Float[np.ndarray, " cells"], seen: Store | View, config: ExpressionConfig
) -> sparse.csr_matrix | Float[np.ndarray, "cells genes"]:
    """Transform stored values [cells, genes of the store] into [cells, genes of the view], before any z-score.

    Sparse unless `cell_minmax`, which goes over the view's genes, shifts the zeros.

    Args:
        values: rows of the store, all genes.
        totals: their totals over all genes.
        seen: the view, or a store for all of it.
        config: what to do.
    """
    result = values.astype(np.float32)
    scale = cell_scale(values, totals, seen, config)
    if scale is not None:
        result.data = np.log1p(result.data * np.repeat(scale.astype(np.float32), np.diff(result.indptr)))
    if isinstance(seen, View):
        result = seen.cut(result)
    if not config.cell_minmax:
        return result
    dense = result.toarray()
    low, high = dense.min(axis=1, keepdims=True), dense.max(axis=1, keepdims=True)
    return (dense - low) / np.where(high > low, high - low, 1)


def moments(seen: Store | View, config: ExpressionConfig) -> Moments:
    """Mean and population standard deviation of every gene's `expression`, in float64.

    Over all cells, zeros included; with zscore "nonzero", over the cells in which the stored value is not zero (a gene
    seen in none has mean and deviation 0). Taken from the store where ingest has computed them, otherwise in one pass.
    """
    view = whole(seen) if isinstance(seen, Store) else seen
    stored = not config.cell_minmax and config.transform != "clr" and view.n_cells == view.store.n_cells
    if not stored or view.median_total != view.store.median_total:
        return _moments(*_sums(view, config), view, config)
    prefix = "log1p_" if view.state == "counts" and config.transform == "log1p" else ""
    mean, variance = (view.var[f"{prefix}{name}"].to_numpy(np.float64) for name in ("mean", "variance"))
    if config.zscore != "nonzero":
        return mean, _deviation(variance, mean)
    seen_in = view.var["nnz"].to_numpy(np.float64)
    return _moments(mean * view.n_cells, (variance + mean**2) * view.n_cells, seen_in, view, config)


def standardised(
    values: Float[np.ndarray, "cells genes"],
    mean: Float[np.ndarray, " genes"],
    std: Float[np.ndarray, " genes"],
    config: ExpressionConfig,
) -> Float[np.ndarray, "cells genes"]:
    """The z-scores of `expression`, all entries, a zero's too; as it is without `zscore`.

    A gene with standard deviation 0 is only shifted.
    """
    if config.zscore == "none":
        return values
    scores = (values - mean) / np.where(std > 0, std, 1)
    return scores if config.clip is None else np.clip(scores, -config.clip, config.clip)


def _sums(view: View, config: ExpressionConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum, sum of squares and number of stored non-zero entries of every gene; with "nonzero", over those alone."""
    total, square, seen_in = np.zeros((3, view.n_genes))
    blocks = track(view.whole_rows(), "moments of the genes", -(-view.n_cells // BLOCK))
    for rows, values in blocks:
        found = expression(values, view.totals[rows], view, config)
        stored = view.cut(values)
        seen_in += _per_gene(stored, None)
        if isinstance(found, np.ndarray):
            entries = found * (stored != 0).toarray() if config.zscore == "nonzero" else found
            total += entries.sum(axis=0, dtype=np.float64)
            square += np.einsum("cg,cg->g", entries, entries, dtype=np.float64)
        else:
            exact = found.data.astype(np.float64)
            total += _per_gene(found, exact)
            square += _per_gene(found, exact**2)
    return total, square, seen_in


def _moments(
    total: np.ndarray, square: np.ndarray, seen_in: np.ndarray, view: View, config: ExpressionConfig
) -> Moments:
    count = np.maximum(seen_in, 1) if config.zscore == "nonzero" else max(view.n_cells, 1)
    mean = total / count
    return mean, _deviation(square / count - mean**2, mean)


def _deviation(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Its square root, exactly 0 for a gene that is the same everywhere."""
    return np.sqrt(np.where(variance > ROUNDING * mean**2, variance, 0))


def _per_gene(values: sparse.csr_matrix, weights: np.ndarray | None) -> np.ndarray:
    return np.bincount(values.indices, weights, minlength=values.shape[1])


def _row_of_value(values: sparse.csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
