"""Loss terms: pure functions of tensors. Element-wise unless they say otherwise."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from grndist.genes import UNMAPPED

TINY = 1e-12  # below float32 resolution of any loss that occurs: only decides 0 / 0


def huber(error: Float[Tensor, "*shape"], delta: float) -> Float[Tensor, "*shape"]:
    """Half the square up to `delta`, linear beyond."""
    size = error.abs()
    return torch.where(size <= delta, 0.5 * size.square(), delta * (size - 0.5 * delta))


def masked_mean(values: Float[Tensor, "cells genes"], mask: Bool[Tensor, "cells genes"]) -> Float[Tensor, ""]:
    """Mean over the entries of `mask`; 0 where it is empty."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def gaussian_kl(mean: Float[Tensor, "*shape"], log_var: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL divergence of N(mean, exp(log_var)) from N(0, 1), in nats."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp())


def interventional_penalty(
    attention: Float[Tensor, "targets regulators"],
    error: Float[Tensor, "cells genes"],
    perturbed: Int64[Tensor, " cells"],
    genes: Int64[Tensor, " genes"],
    loss: Literal["huber", "squared"] = "huber",
    ratio: Literal["printed", "inverted"] = "printed",
    min_cells: int = 1,
) -> Float[Tensor, ""]:
    """CaTran's interventional loss: attention to a perturbed gene should follow how its knock-down changes the errors.

    For perturbed gene s, m1[t] is the mean error of target t over cells with s perturbed, m2[t] over all others;
    column s of the attention is drawn to sigmoid(m2 / m1 - 1) (`inverted`: m1 / m2), 0.5 where nothing changes.
    Mean over targets, sum over s, divided by the number of perturbed genes in the batch.

    Genes outside the subset, or with fewer than `min_cells` cells on either side, add nothing but still count in the
    divisor. Cells whose label is no gene of the panel are on neither side. Without perturbed cells the loss is 0.

    Args:
        attention: of the gene subset; a row is one target's weights.
        error: per-entry error of the predictions, over the same subset.
        perturbed: panel column of every cell's perturbed gene, or CONTROL / UNMAPPED.
        genes: the subset's panel columns, ascending.
        loss: how the attention is compared with its target (the paper: Huber; the released code: squared).
        ratio: which way round the errors are divided (the paper prints m2 / m1).
        min_cells: smallest group that is compared.
    """
    labels = perturbed[perturbed >= 0].unique()
    if len(labels) == 0:
        return attention.new_zeros(())
    column = torch.searchsorted(genes, labels).clamp_max(len(genes) - 1)
    with_s = perturbed == labels[:, None]  # [labels, cells]
    others = ~with_s & (perturbed != UNMAPPED)
    usable = (genes[column] == labels) & (with_s.sum(1) >= min_cells) & (others.sum(1) >= min_cells)
    m1, m2 = _group_means(with_s[usable], error), _group_means(others[usable], error)
    top, bottom = (m2, m1) if ratio == "printed" else (m1, m2)
    wanted = torch.sigmoid((top + TINY) / (bottom + TINY) - 1)
    difference = attention[:, column[usable]].T - wanted  # [labels, targets]
    penalty = huber(difference, 1.0) if loss == "huber" else difference.square()
    return penalty.mean(1).sum() / len(labels)


def _group_means(member: Bool[Tensor, "labels cells"], error: Float[Tensor, "cells genes"]) -> Tensor:
    return member.to(error) @ error / member.sum(1, keepdim=True)
