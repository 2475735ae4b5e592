"""Which entries of a batch are hidden, and what stands in their place.

A logical stream's share of the batch is corrupted on its own, by random numbers of its own: the result does not depend
on how streams are dealt to workers.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from grndist.data.stream.batch import Batch
from grndist.models.catran import kernels
from grndist.parallel import for_each, pieces

CELLS_PER_PART, GENES_PER_PART = 256, 64


def corrupt(
    batch: Batch, share: float, kind: Literal["permute", "permute_within_gene", "zero"]
) -> tuple[Bool[Tensor, "cells genes"], Float[Tensor, "cells genes"]]:
    """Hide exactly int(share * genes) genes of every cell. Returns which entries, and the corrupted expression.

    `permute` pools the hidden values of all cells and genes of one logical stream's share and puts them back in random
    order, so that a hidden value is replaced by any of them; one stream is the published form. `permute_within_gene`
    does so gene by gene, `zero` sets them to 0. The model is not told which entries are hidden.
    """
    x = batch.expression
    n_hidden = int(share * x.shape[1])
    hidden = batch.draw("hidden", lambda rng, rows: _chosen(_key(rng), rows, x.shape[1], n_hidden))
    if kind == "zero":
        return hidden, x.masked_fill(hidden, 0)
    permuted = _permuted if kind == "permute" else _permuted_within_gene
    return hidden, batch.draw("permutation", _over_rows(x.cpu().numpy(), hidden.cpu().numpy(), permuted))


def _key(rng: np.random.Generator) -> np.uint64:
    return rng.integers(2**64, dtype=np.uint64)


def _chosen(key: np.uint64, rows: slice, n_genes: int, n_hidden: int) -> Bool[np.ndarray, "cells genes"]:
    chosen = np.empty((rows.stop - rows.start, n_genes), dtype=bool)
    for_each(
        pieces(len(chosen), CELLS_PER_PART),
        lambda _, cells: kernels.choose(key, cells.start, n_hidden, chosen[cells]),
    )
    return chosen


def _over_rows(
    x: np.ndarray, hidden: np.ndarray, permuted: Callable[[np.uint64, np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[np.random.Generator, slice], np.ndarray]:
    return lambda rng, rows: permuted(_key(rng), x[rows], hidden[rows])


def _permuted(
    key: np.uint64, x: Float[np.ndarray, "cells genes"], hidden: Bool[np.ndarray, "cells genes"]
) -> Float[np.ndarray, "cells genes"]:
    out = np.empty_like(x)
    kernels.permute(key, x, hidden, out)
    return out


def _permuted_within_gene(
    key: np.uint64, x: Float[np.ndarray, "cells genes"], hidden: Bool[np.ndarray, "cells genes"]
) -> Float[np.ndarray, "cells genes"]:
    out = np.empty_like(x)
    for_each(
        pieces(x.shape[1], GENES_PER_PART),
        lambda _, genes: kernels.permute_within_gene(key, x, hidden, out, genes.start, genes.stop),
    )
    return out
