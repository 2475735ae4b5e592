"""Dropout augmentation: what the model sees of a batch, and what it is asked to restore."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from grndist.data.stream.batch import Batch
from grndist.data.stream.batches import Batches
from grndist.models.grn_vae.config import GRNVAEConfig

SHARE_OF_MEAN = {"below_mean": 1.0, "below_half_mean": 0.5}


@dataclass(frozen=True)
class Seen:
    """Standardised expression of a batch."""

    x: Float[Tensor, "*replicates cells genes"]  # the encoder's input
    target: Float[Tensor, "*replicates cells genes"]
    dropped: Bool[Tensor, "*replicates cells genes"] | None  # entries that were set to zero; None: no augmentation


def augmented(
    batch: Batch | Batches,
    mean: Float[Tensor, "... genes"],
    std: Float[Tensor, "... genes"],
    config: GRNVAEConfig,
    rate: float | Float[Tensor, "replicates 1 1"] | None,
) -> Seen:
    """Set random entries to zero, then z-score. A zero may be drawn, too: it stays one, and counts as dropped.

    Args:
        batch: of one model, or one of each of several replicates.
        mean: of the batch's genes, over the training cells.
        std: the deviation.
        config: which entries, and what is done with the others.
        rate: share of the entries; None: nothing is augmented.
    """
    clean = batch.expression
    if rate is None:
        x = standardised(clean, mean, std, config.clip)
        return Seen(x, x, None)
    dropped = batch.draw("augmentation", lambda rng, rows: _uniform(rng, rows, clean.shape[-1])) < rate
    if config.augmentation_entries != "all":
        dropped &= clean < SHARE_OF_MEAN[config.augmentation_entries] * mean
    kept = clean.masked_fill(dropped, 0)
    if config.augmentation_rescale:
        kept = kept / (1 - rate)
    x = standardised(kept, mean, std, config.clip)
    target = x if config.reconstruction_target == "augmented" else standardised(clean, mean, std, config.clip)
    return Seen(x, target, dropped)


def standardised(
    expression: Float[Tensor, "*replicates cells genes"],
    mean: Float[Tensor, "... genes"],
    std: Float[Tensor, "... genes"],
    clip: float | None,
) -> Float[Tensor, "*replicates cells genes"]:
    """Z-scores, clipped."""
    scores = (expression - mean) / std
    return scores if clip is None else scores.clamp(-clip, clip)


def _uniform(rng: np.random.Generator, rows: slice, n_genes: int) -> np.ndarray:
    return rng.random((rows.stop - rows.start, n_genes), dtype=np.float32)
