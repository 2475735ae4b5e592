"""Stored values -> the expression a model sees, on the fly and never logged twice."""

from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from scipy import sparse

from grndist.config import Config
from grndist.data.store import Store


class ExpressionConfig(Config):
    """Which values a model is given."""

    transform: Literal["none", "log1p"] = Field(
        "log1p",
        description="none: as stored (raw counts); log1p: counts scaled to the median library size, then log(1 + x). "
        "Values that are not counts are never transformed",
    )
    cell_minmax: bool = Field(
        False, description="then scale every cell to [0, 1] by its own smallest and largest value"
    )


def expression(
    values: sparse.csr_matrix, totals: Float[np.ndarray, " cells"], store: Store, config: ExpressionConfig
) -> sparse.csr_matrix | Float[np.ndarray, "cells genes"]:
    """Transform stored values of whole cells [cells, genes]; sparse unless `cell_minmax` shifts the zeros.

    Args:
        values: rows of the store, all genes.
        totals: their totals over all genes.
        store: knows the state of the values and the median total.
        config: what to do.
    """
    result = values.astype(np.float32)
    if store.state == "counts" and config.transform == "log1p":
        scale = np.divide(store.median_total, totals, out=np.zeros_like(totals), where=totals > 0).astype(np.float32)
        result.data = np.log1p(result.data * np.repeat(scale, np.diff(result.indptr)))
    if config.cell_minmax:
        dense = result.toarray()
        low, high = dense.min(axis=1, keepdims=True), dense.max(axis=1, keepdims=True)
        return (dense - low) / np.where(high > low, high - low, 1)
    return result


def moments(store: Store, config: ExpressionConfig) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]:
    """Mean and population standard deviation of every gene over all cells, zeros included, in float64.

    Taken from the store where ingest has computed them, otherwise in one pass.
    """
    if not config.cell_minmax:
        logged = store.state == "counts" and config.transform == "log1p"
        prefix = "log1p_" if logged else ""
        return store.var[f"{prefix}mean"].to_numpy(), np.sqrt(store.var[f"{prefix}variance"].to_numpy())
    total, square = np.zeros(store.n_genes), np.zeros(store.n_genes)
    for rows, values in store.blocks():
        dense = np.asarray(expression(values, store.totals[rows], store, config), dtype=np.float64)
        total += dense.sum(axis=0)
        square += (dense**2).sum(axis=0)
    mean = total / store.n_cells
    return mean, np.sqrt(np.maximum(square / store.n_cells - mean**2, 0))
