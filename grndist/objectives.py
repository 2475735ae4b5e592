"""Loss terms: pure functions of tensors. Element-wise unless they say otherwise."""

from dataclasses import dataclass
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


def gaussian_kl(
    mean: Float[Tensor, "*shape"],
    log_var: Float[Tensor, "*shape"],
    prior_mean: Float[Tensor, "*prior"],
    prior_log_var: Float[Tensor, "*prior"],
) -> Float[Tensor, "*shape"]:
    """KL divergence of N(mean, exp(log_var)) from the prior, in nats."""
    difference = (mean - prior_mean).square() + log_var.exp()
    return 0.5 * (prior_log_var - log_var + difference * (-prior_log_var).exp() - 1)


def sampled_kl(
    z: Float[Tensor, "*shape"],
    mean: Float[Tensor, "*shape"],
    log_var: Float[Tensor, "*shape"],
    prior_mean: Float[Tensor, "*prior"],
    prior_log_var: Float[Tensor, "*prior"],
) -> Float[Tensor, "*shape"]:
    """The same divergence, estimated from one draw `z` of N(mean, exp(log_var)): log q(z) - log p(z).

    Variances are raised by 1e-8, as DeepSEM's code has it.
    """
    return _log_normal(z, mean, log_var) - _log_normal(z, prior_mean, prior_log_var)


def _log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Logarithm of the density, up to the constant."""
    var = log_var.exp() + 1e-8
    return -0.5 * (var.log() + (z - mean).square() / var)


def cells_by_label(perturbed: Int64[Tensor, " cells"], n_genes: int) -> Int64[Tensor, " labels"]:
    """Number of cells of every label: unmapped cells, controls, then those of each perturbed gene of the panel.

    Args:
        perturbed: panel column of every cell's perturbed gene, or CONTROL / UNMAPPED.
        n_genes: of the panel.
    """
    return torch.bincount(perturbed - UNMAPPED, minlength=n_genes - UNMAPPED)


@dataclass(frozen=True)
class Groups:
    """Which cells the interventional loss compares. Rows of sums over them: a perturbed gene each, others, left out."""

    row: Int64[Tensor, " cells"]  # of every cell
    n_cells: Int64[Tensor, " rows"]
    column: Int64[Tensor, " labels"]  # in the gene subset, of the perturbed genes that have a row
    n_perturbed: Int64[Tensor, ""]  # perturbed genes of the batch, in the subset or not

    @property
    def n_rows(self) -> int:
        """Perturbed genes of the subset, and two more."""
        return len(self.n_cells)

    @classmethod
    def of(
        cls, perturbed: Int64[Tensor, " cells"], genes: Int64[Tensor, " genes"], by_label: Int64[Tensor, " labels"]
    ) -> "Groups":
        """The groups of a batch whose gene subset (panel columns) is `genes`.

        Controls and cells whose perturbed gene is outside the subset are others; UNMAPPED cells are left out.

        Args:
            perturbed: as `cells_by_label` takes them.
            genes: the subset.
            by_label: number of cells of every label, over all workers.
        """
        column = by_label[genes - UNMAPPED].nonzero()[:, 0]
        row_of = torch.full_like(by_label, len(column))  # by label
        row_of[0] += 1
        row_of[genes[column] - UNMAPPED] = torch.arange(len(column), device=genes.device)
        n_cells = by_label.new_zeros(len(column) + 2).index_add(0, row_of, by_label)
        return cls(row_of[perturbed - UNMAPPED], n_cells, column, by_label[-UNMAPPED:].count_nonzero())


def interventional_penalty(
    attention: Float[Tensor, "genes genes"],
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
    groups = Groups.of(perturbed, genes, cells_by_label(perturbed, int(genes[-1]) + 1))
    sums = error.new_zeros(groups.n_rows, len(genes)).index_add(0, groups.row, error)
    return penalty_of_sums(attention, sums, groups, loss, ratio, min_cells)


def penalty_of_sums(
    attention: Float[Tensor, "genes genes"],
    sums: Float[Tensor, "rows genes"],
    groups: Groups,
    loss: Literal["huber", "squared"],
    ratio: Literal["printed", "inverted"],
    min_cells: int,
) -> Float[Tensor, ""]:
    """`interventional_penalty`, given the sums of the errors over the cells of every group."""
    if len(groups.column) == 0:
        return attention.new_zeros(())
    counts = groups.n_cells[:, None]
    n_with, n_others = counts[:-2], counts[:-1].sum() - counts[:-2]
    m1 = sums[:-2] / n_with  # [labels, targets]
    m2 = (sums[:-1].sum(0) - sums[:-2]) / n_others.clamp_min(1)
    top, bottom = (m2, m1) if ratio == "printed" else (m1, m2)
    wanted = torch.sigmoid((top + TINY) / (bottom + TINY) - 1)
    difference = attention[:, groups.column].T - wanted
    penalty = huber(difference, 1.0) if loss == "huber" else difference.square()
    usable = (n_with >= min_cells) & (n_others >= min_cells)
    return (penalty * usable).mean(1).sum() / groups.n_perturbed
