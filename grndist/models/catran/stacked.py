"""Several CaTrans at once. What does not touch the cells is one vectorised computation over all of them.

What does is compiled loops, which go over the replicates one after the other, and products.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap

from grndist.data.stream.batches import Batches
from grndist.models.affine import Moments
from grndist.models.catran.config import CaTranConfig
from grndist.models.catran.corruption import corrupt
from grndist.models.catran.fast import Cells, affine_part, losses, output
from grndist.models.catran.model import CaTran
from grndist.models.silu_head import silu_head
from grndist.workers import ALONE

WEIGHTS = ("hidden_weight", "visible_weight", "interventional_weight")  # of each its own
SWITCH = "interventional_weight"  # ... but 0 for all or none


def why_not_stacked(configs: Sequence[CaTranConfig]) -> str:
    """Why models with these settings cannot be stacked, in words; empty where they can."""
    first = configs[0]
    if first.form != "fast":
        return f"model.form={first.form} has no stacked form"
    for config in configs:
        for name in CaTranConfig.model_fields:
            ours, theirs = getattr(first, name), getattr(config, name)
            if ours != theirs and (name not in WEIGHTS or (name == SWITCH and 0 in (ours, theirs))):
                return f"model.{name} is {ours} and {theirs}"
    return ""


class _WithoutCells(nn.Module):
    """The part of a model that depends on its cells by their moments alone."""

    def __init__(self, model: CaTran):
        super().__init__()
        self.model = model

    def forward(
        self, genes: Int64[Tensor, " genes"], n_cells: int, mean: Float[Tensor, " genes"],
        covariance: Float[Tensor, "genes genes"],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Attention and mixing matrices; level and slope of the field; weight and bias of the output."""
        attention = self.model.attention(genes)
        moments = Moments(n_cells, mean, covariance)
        field, mixing = affine_part(self.model, moments, self.model.embedding[genes], attention)
        return attention, mixing, field.level, field.slope, *output(self.model)


class StackedCaTran:
    """Models over the same genes, their parameters stacked [replicates, ...]."""

    def __init__(self, models: Sequence[CaTran], parameters: Mapping[str, Tensor]):
        self.configs = [model.config for model in models]
        self.one = _WithoutCells(models[0])
        self.state = {f"model.{name}": value for name, value in parameters.items()}
        for name, _ in models[0].named_buffers():
            rows = torch.stack([model.get_buffer(name) for model in models])
            self.state[f"model.{name}"] = rows
            for model, row in zip(models, rows, strict=True):
                model.get_buffer(name).data = row  # so that the model goes on seeing what is its own

    def losses(self, batches: Batches) -> dict[str, Float[Tensor, " replicates"]]:
        """The loss terms of every replicate's batch, as `CaTran.forward` gives them in training."""
        config = self.configs[0]
        corrupted = [corrupt(batch, config.hidden, config.corruption) for batch in batches.each]
        n_genes = len(batches.genes)
        cells = [
            Cells.of(x, batch.perturbed, n_genes, ALONE) for (_, x), batch in zip(corrupted, batches.each, strict=True)
        ]
        mean, x = torch.stack([own.mean for own in cells]), torch.stack([own for _, own in corrupted])
        centred = x - mean[:, None]
        covariance = centred.mT @ centred / cells[0].number
        found = self._without_cells(batches.genes, cells[0].number, mean, covariance)
        attention, mixing, level, slope, weight, bias = found
        heads = zip(*(part.unbind() for part in (centred @ mixing.mT, level, slope, weight, bias)), strict=True)
        predicted = [silu_head(*head) for head in heads]
        hidden = [own for own, _ in corrupted]
        terms = [
            losses(config, predicted[at], batches.each[at], hidden[at], of_one, cells[at], ALONE)
            for at, (config, of_one) in enumerate(zip(self.configs, attention.unbind(), strict=True))
        ]
        return {name: torch.stack([own[name] for own in terms]) for name in terms[0]}

    def _without_cells(self, genes: Tensor, n_cells: int, mean: Tensor, covariance: Tensor) -> tuple[Tensor, ...]:
        def of_one(state: dict[str, Tensor], mean: Tensor, covariance: Tensor) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = functional_call(self.one, state, (genes, n_cells, mean, covariance))
            return found

        found: tuple[Tensor, ...] = vmap(of_one)(self.state, mean, covariance)
        return found
