"""CaTran layer by layer: the definition of the model, and the reference of the fast form."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.models.catran.config import CaTranConfig
from grndist.objectives import huber, interventional_penalty, masked_mean

if TYPE_CHECKING:
    from grndist.models.catran.model import CaTran


def predict(
    model: "CaTran",
    x: Float[Tensor, "cells genes"],
    embedding: Float[Tensor, "genes d"],
    attention: Float[Tensor, "genes genes"],
) -> Float[Tensor, "cells genes"]:
    """Restored expression of the gene subset."""
    y = x.T[:, :, None]  # genes first: attention is then one matrix product on what lies together in memory
    e = embedding[:, None].expand(-1, len(x), -1)
    h = torch.cat([y, e], dim=2) if model.config.expression_input == "concatenate" else y + e  # [genes, cells, d]
    for linear, norm in zip(model.input_linears, model.input_norms, strict=True):
        h = over_channels(norm, linear(h))
    for _ in range(model.config.aggregations):
        h = over_channels(model.attention_norm, (attention @ h.flatten(1)).view_as(h))
    h = nn.functional.silu(over_channels(model.middle_norm, model.middle(h)))
    return model.last(model.output(h))[:, :, 0].T


def losses(
    config: CaTranConfig,
    predicted: Float[Tensor, "cells genes"],
    batch: Batch,
    hidden: Bool[Tensor, "cells genes"],
    attention: Float[Tensor, "genes genes"],
) -> dict[str, Tensor]:
    """The weighted loss terms of one batch."""
    difference = predicted - batch.expression
    squared = config.reconstruction_loss == "squared"
    error = difference.square() if squared else huber(difference, config.huber_delta)
    terms = {
        "hidden": config.hidden_weight * masked_mean(error, hidden),
        "visible": config.visible_weight * masked_mean(error, ~hidden),
    }
    if config.interventional_weight > 0:
        terms["interventional"] = config.interventional_weight * interventional_penalty(
            attention,
            error if config.interventional_gradient else error.detach(),
            batch.perturbed,
            batch.genes,
            config.interventional_loss,
            config.interventional_ratio,
            config.interventional_min_cells,
        )
    return terms


def over_channels(norm: nn.Module, h: Float[Tensor, "genes cells d"]) -> Float[Tensor, "genes cells d"]:
    """BatchNorm over the channels, statistics pooled over cells and genes."""
    return norm(h.flatten(0, 1)).view_as(h)
