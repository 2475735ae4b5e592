"""CaTran by algebra: affine fields up to the activation, one fused head after it, fused losses.

No tensor of cells x genes x d is made, and none of cells x genes for all but the last aggregation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.models.affine import AffineField, Moments
from grndist.models.catran.config import CaTranConfig
from grndist.models.catran.error_sums import error_sums
from grndist.models.layers import linears
from grndist.models.silu_head import silu_head
from grndist.objectives import Groups, cells_by_label, penalty_of_sums
from grndist.workers import Workers, with_own_gradient

if TYPE_CHECKING:
    from grndist.models.catran.model import CaTran


@dataclass(frozen=True)
class Cells:
    """What has to be known of the cells of a step, those of all workers."""

    number: int
    by_label: Int64[Tensor, " labels"]  # see `cells_by_label`
    mean: Float[Tensor, " genes"]  # of the corrupted expression

    @classmethod
    def of(
        cls, x: Float[Tensor, "cells genes"], perturbed: Int64[Tensor, " cells"], n_genes: int, workers: Workers
    ) -> "Cells":
        """That, given this worker's own cells, corrupted, over a panel of `n_genes`."""
        own = cells_by_label(perturbed, n_genes)
        sums, by_label = workers.total(x.sum(0), own.to(x))  # floats count exactly up to 16 million cells
        number = int(by_label.sum())
        return cls(number, by_label.to(own), sums / number)


def predict(
    model: "CaTran",
    moments: Moments,
    centred: Float[Tensor, "cells genes"],
    embedding: Float[Tensor, "genes d"],
    attention: Float[Tensor, "genes genes"],
) -> Float[Tensor, "cells genes"]:
    """Restored expression of the gene subset, given the moments of the corrupted one and it without its mean."""
    with torch.autocast(centred.device.type, enabled=False):  # small next to the one product below, and exact sums
        field, mixing = affine_part(model, moments, embedding, attention)
        weight, bias = output(model)
    y = (centred @ mixing.T).to(field.level)
    return silu_head(y, field.level, field.slope, weight, bias)


def affine_part(
    model: "CaTran",
    moments: Moments,
    embedding: Float[Tensor, "genes d"],
    attention: Float[Tensor, "genes genes"],
) -> tuple[AffineField, Float[Tensor, "genes genes"]]:
    """The field before the activation, and the matrix that mixes the genes of the centred expression into its y.

    Every attention product is followed by a BatchNorm, which forgets its scale. Attention is divided by its mean row
    sum here and the slope multiplied by it, lest powers of sigmoid attention overflow.
    """
    field = entered(model, moments, embedding)
    norms = cast("Iterable[nn.BatchNorm1d]", model.input_norms)
    for linear, norm in zip(linears(model.input_linears), norms, strict=True):
        field = field.linear(linear).normalised(norm)
    total = attention.detach().sum(1).mean()
    scale = torch.where(total > 0, total, 1)  # a threshold may leave nothing
    scaled = mixing = attention / scale
    for number in range(model.config.aggregations):
        mixing = scaled @ mixing if number else scaled
        variance = quadratic_form(mixing, moments.covariance) / len(mixing)
        field = field.mixed(attention, scale, variance).normalised(model.attention_norm)
    return field.linear(model.middle).normalised(model.middle_norm), mixing


def quadratic_form(rows: Float[Tensor, "targets genes"], symmetric: Float[Tensor, "genes genes"]) -> Float[Tensor, ""]:
    """Sum of r S r^T over rows r, differentiable once with respect to them, with one product instead of two."""
    product = rows.detach() @ symmetric  # half the gradient
    return (product * (2 * rows - rows.detach())).sum()


def entered(model: "CaTran", moments: Moments, embedding: Float[Tensor, "genes d"]) -> AffineField:
    """Expression joined to the embeddings."""
    joined = model.config.expression_input == "concatenate"
    level = nn.functional.pad(embedding, (1, 0)) if joined else embedding
    slope = torch.ones_like(level[0])
    slope[1 if joined else len(slope) :] = 0
    level = level + moments.mean[:, None] * slope
    return AffineField(level, slope, moments.covariance.diagonal().mean(), moments.n_cells)


def output(model: "CaTran") -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """The Linear layers after the activation as one: weights and bias."""
    weight: Tensor = model.last.weight
    bias: Tensor = model.last.bias
    for linear in linears(model.output):
        weight, bias = weight @ linear.weight, bias + weight @ linear.bias
    return weight[0], bias[0]


def losses(
    config: CaTranConfig,
    predicted: Float[Tensor, "cells genes"],
    batch: Batch,
    hidden: Bool[Tensor, "cells genes"],
    attention: Float[Tensor, "genes genes"],
    cells: Cells,
    workers: Workers,
) -> dict[str, Tensor]:
    """This worker's share of the weighted loss terms of one step."""
    groups = Groups.of(batch.perturbed, batch.genes, cells.by_label)
    delta = float("inf") if config.reconstruction_loss == "squared" else config.huber_delta
    sums = error_sums(predicted, batch.expression, hidden, groups.row, groups.n_rows, delta)
    half = 2.0 if config.reconstruction_loss == "squared" else 1.0  # Huber with no bound is half the square
    n_genes = hidden.shape[1]
    n_hidden = int(config.hidden * n_genes) * cells.number
    terms = {
        "hidden": half * config.hidden_weight * sums.hidden / max(n_hidden, 1),
        "visible": half * config.visible_weight * sums.visible / (n_genes * cells.number - n_hidden),
    }
    if config.interventional_weight > 0:
        by_group = half * (sums.by_group if config.interventional_gradient else sums.by_group.detach())
        terms["interventional"] = config.interventional_weight * _penalty(config, attention, by_group, groups, workers)
    return terms


def _penalty(
    config: CaTranConfig,
    attention: Float[Tensor, "genes genes"],
    own: Float[Tensor, "rows genes"],
    groups: Groups,
    workers: Workers,
) -> Float[Tensor, ""]:
    """This worker's share of the interventional loss.

    Errors enter by their sums over the cells of all workers, the attention is the same everywhere.
    """
    total = with_own_gradient(workers.total(own)[0], own, workers) if len(groups.column) else own
    loss, ratio, min_cells = (
        config.interventional_loss, config.interventional_ratio, config.interventional_min_cells
    )  # fmt: skip
    return penalty_of_sums(attention, total, groups, loss, ratio, min_cells) / workers.count
