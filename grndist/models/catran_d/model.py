"""CaTran-D: every gene's expression predicted from the other genes and from what was knocked down; W is the network.

    x[c, s] = -strength              where gene s is perturbed in cell c (the fact, not the noisy count)
            = gain z[c, s]           otherwise; 0 for an input that was not measured
    z'[c, t] = 0                     where t is perturbed in c, else z[c, t]
    L = mean over cells, sum over targets / G of (x W^T - z')^2  +  ridge / G sum W^2,   W[t, t] = 0

with z the expression minus its mean over control cells, divided by its deviation over all cells. Quadratic in W, L
needs only M = E[x x^T] and B = E[z' x^T] (`MomentsBatch`); mini-batches of cells train the same thing.

Scores: partial correlations out of W for every regulator, blended with the difference of means for those that were
perturbed, as log odds of being an edge (`grndist.effects`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.models.catran_d.config import CaTranDConfig
from grndist.models.catran_d.scores import Scores, scores
from grndist.models.catran_d.weights import Attention, Bilinear, Full
from grndist.workers import ALONE, Workers


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a model's tensors depend on beside its settings."""

    genes: int  # of the panel
    inputs: int  # and the perturbed genes that were not measured
    labels: int
    guides: int  # of a label, at most
    effects: int  # inputs that are the only perturbed gene of some cells

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Sizes":
        """The sizes of the model whose state dict this is."""
        labels, guides = weights["members"].shape
        return cls(len(weights["mean"]), len(weights["reach"]), labels, guides, len(weights["effect"]))


class CaTranD(nn.Module):
    """The model of `CaTranDConfig`; `form` must not be "auto" any more."""

    signed: ClassVar[bool] = True

    mean: Tensor  # [genes], over control cells
    deviation: Tensor  # [genes], over all cells
    members: Tensor  # [labels, guides] inputs that a label perturbs, -1 where there is none
    strength: Tensor  # [labels, guides]
    reach: Tensor  # [inputs] and
    residual: Tensor  # [genes]: W[t, s] reach[s] / residual[t] is a partial correlation
    effect: Tensor  # [effects, genes] difference of means, z
    effect_input: Tensor  # [effects]

    def __init__(self, config: CaTranDConfig, sizes: Sizes, seed: int = 0):
        super().__init__()
        self.config, self.sizes = config, sizes
        self._scores: Scores | None = None  # of the weights as they are
        self.weights = _weights(config, sizes, seed)
        for name, shape in (("mean", sizes.genes), ("deviation", sizes.genes), ("residual", sizes.genes)):
            self.register_buffer(name, torch.ones(shape))
        self.register_buffer("reach", torch.ones(sizes.inputs))
        self.register_buffer("members", torch.full((sizes.labels, sizes.guides), -1))
        self.register_buffer("strength", torch.zeros(sizes.labels, sizes.guides))
        self.register_buffer("effect", torch.zeros(sizes.effects, sizes.genes))
        self.register_buffer("effect_input", torch.zeros(sizes.effects, dtype=torch.int64))

    @property
    def n_regulators(self) -> int:
        """Genes of the panel, then perturbed genes that were not measured."""
        return self.sizes.inputs

    def forward(self, batch: Batch | MomentsBatch, workers: Workers = ALONE) -> dict[str, Tensor]:
        """The loss terms, this worker's share of them, from cells or from the moments of all of them."""
        if isinstance(batch, MomentsBatch):
            return {name: term / workers.count for name, term in self._of_moments(batch).items()}
        config = self.config
        inputs = self._inputs_of(batch.genes)
        x, target, own = self.standardised(batch, inputs)
        weights = self.weights(batch.genes, inputs)
        error = x @ weights.T - target
        if config.own_perturbation == "masked":
            error = error.masked_fill(own, 0)
        n_cells = int(workers.total(torch.tensor(batch.n_cells))[0])
        return {
            "prediction": error.square().sum() / (n_cells * error.shape[1]),
            "ridge": config.ridge * weights.square().sum() / len(weights) / workers.count,
        }

    def standardised(
        self, batch: Batch, inputs: Int64[Tensor, " inputs"]
    ) -> tuple[Float[Tensor, "cells inputs"], Float[Tensor, "cells targets"], Bool[Tensor, "cells targets"]]:
        """x, z' and where a target is perturbed itself, of a batch's cells.

        Args:
            batch: its gene subset are the targets.
            inputs: the subset, then every unmeasured input.
        """
        z = (batch.expression - self.mean[batch.genes]) / self.deviation[batch.genes]
        slot = torch.full((self.sizes.inputs,), -1, device=z.device)
        slot[inputs] = torch.arange(len(inputs), device=z.device)
        members = self.members[batch.labels]  # [cells, guides]
        place = torch.where(members >= 0, slot[members.clamp_min(0)], -1)
        cell, guide = (place >= 0).nonzero(as_tuple=True)
        column = place[cell, guide]
        x = torch.cat([self.config.gain * z, z.new_zeros(len(z), len(inputs) - z.shape[1])], dim=1)
        x[cell, column] = -self.strength[batch.labels[cell], guide].to(z)
        own = torch.zeros_like(x, dtype=torch.bool)
        own[cell, column] = True
        own = own[:, : z.shape[1]]
        return x, z.masked_fill(own, 0), own

    def _of_moments(self, batch: MomentsBatch) -> dict[str, Tensor]:
        inputs = self._inputs_of(batch.genes)
        if isinstance(self.weights, Bilinear):
            linear, quadratic, square = _low_rank_terms(self.weights, batch, inputs)
        else:
            weights = self.weights(batch.genes, inputs)
            linear, quadratic = (weights * batch.cross).sum(), ((weights @ batch.second) * weights).sum()
            square = weights.square().sum()
        n_targets = len(batch.genes)
        return {
            "prediction": (quadratic - 2 * linear + batch.target_square.sum()) / n_targets,
            "ridge": self.config.ridge * square / n_targets,
        }

    def _inputs_of(self, genes: Int64[Tensor, " genes"]) -> Int64[Tensor, " inputs"]:
        unmeasured = torch.arange(self.sizes.genes, self.sizes.inputs, device=genes.device)
        return torch.cat([genes, unmeasured])

    @torch.no_grad()
    def associations(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Partial correlations of regulators and all targets, out of W; 0 for a gene and itself."""
        targets = torch.arange(self.sizes.genes, device=rows.device)
        return self.weights.block(targets, rows).T * self.reach[rows, None] / self.residual

    @torch.no_grad()
    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Signed weights of the edges from some regulators to the panel's genes; 0 for a gene and itself."""
        associations = self.associations(rows)
        if self.config.scores == "model" or len(self.effect_input) == 0:
            return associations
        if self._scores is None or self.training:
            perturbed = self.associations(self.effect_input)
            self._scores = scores(self.effect_input, perturbed, self.effect, self.config.weight)
        return self._scores.of(rows, associations)

    def train(self, mode: bool = True) -> "CaTranD":
        """As of any module; the scores of what was learnt before are forgotten."""
        self._scores = None
        return super().train(mode)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters; none in the full form, which is solved."""
        return {"networks": list(self.parameters())} if self.weights.trained else {}

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """Vectors of the panel's genes as regulators and as targets; none in the full form."""
        return self.weights.embeddings()

    def touched_rows(self, genes: Int64[Tensor, " genes"]) -> list[tuple[nn.Parameter, Int64[Tensor, " rows"]]]:
        """What the weights have of every target, at a step's genes, and of every input, at its inputs."""
        inputs = self._inputs_of(genes)
        return [(parameter, genes) for parameter in self.weights.of_targets()] + [
            (parameter, inputs) for parameter in self.weights.of_inputs()
        ]


def _weights(config: CaTranDConfig, sizes: Sizes, seed: int) -> Full | Bilinear | Attention:
    if config.form == "full":
        return Full(sizes.genes, sizes.inputs)
    if config.form == "bilinear":
        return Bilinear(sizes.genes, sizes.inputs, min(config.embedding, sizes.genes), seed)
    if config.form == "attention":
        return Attention(sizes.genes, sizes.inputs, config.embedding, config.heads, seed)
    raise ValueError("form is 'auto'; it must have been resolved before a model is built")


def _low_rank_terms(
    weights: Bilinear, batch: MomentsBatch, inputs: Int64[Tensor, " inputs"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of W * B, (W M) * W and W^2 in G^2 d operations.

    W is Q P^T without its diagonal, with P = K / sqrt(d).
    """
    query = weights.query[batch.genes]
    key = weights.key[inputs] / query.shape[1] ** 0.5
    n_targets = len(query)
    own = (query * key[:n_targets]).sum(dim=1)  # the diagonal of Q P^T
    through = batch.second @ key  # M P, [inputs, d]
    linear = (query * (batch.cross @ key)).sum() - own @ batch.cross.diagonal()
    quadratic = (
        ((query @ (key.T @ through)) * query).sum()
        - 2 * own @ (query * through[:n_targets]).sum(dim=1)
        + own.square() @ batch.second.diagonal()[:n_targets]
    )
    return linear, quadratic, ((query @ (key.T @ key)) * query).sum() - own.square().sum()
