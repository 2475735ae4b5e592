"""CaTran: gene embeddings attend to each other; the attention matrix is the network.

After "CaTran: ultra-light neural network for predicting gene-gene interactions from single-cell data" (Bakulin).
Expression is joined to the embeddings, part of it is corrupted, and the model restores it; an interventional loss
draws the attention to perturbed genes. This is the plain form, layer by layer: the definition of the model.

Attention does not depend on the cell. Its rows are targets, its columns regulators, so the adjacency is its transpose.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from grndist.config import Config
from grndist.data.stream.batch import Batch
from grndist.models.layers import fill, init_normal, linears
from grndist.objectives import huber, interventional_penalty, masked_mean
from grndist.seeds import stream


class CaTranConfig(Config):
    """Every choice on which the paper and its released code differ; the defaults are the paper's."""

    # What the paper prescribes for the run around the model; a run file overrides it.
    run_defaults: ClassVar[Mapping[str, Any]] = {
        "expression": {"transform": "none"},  # raw counts were best
        "training": {
            "epochs": 25,
            "cells_per_step": 2048,
            "genes_per_step": 500,
            "optimizer": "lion",
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "betas": (0.9, 0.99),
        },
    }

    kind: Literal["catran"] = "catran"
    embedding: int = Field(40, gt=0, description="width of the gene embeddings")
    expression_input: Literal["concatenate", "add"] = Field(
        "concatenate", description="join expression to the embedding as one more channel, or add it to every channel"
    )
    projection: bool = Field(True, description="project the embeddings before the dot product")
    attention: Literal["softmax", "sigmoid"] = Field("softmax", description="in training; extraction is always softmax")
    input_layers: int = Field(2, ge=1, description="Linear + BatchNorm pairs before the attention")
    aggregations: int = Field(1, ge=1, description="times the same attention and BatchNorm are applied")
    output_layers: Literal[1, 2] = Field(2, description="Linear layers after the activation")
    embedding_std: float = Field(0.001, gt=0, description="initial standard deviation of the embeddings")
    linear_std: float = Field(0.001, gt=0, description="initial standard deviation of every Linear weight")
    hidden: float = Field(0.8, gt=0, lt=1, description="share of genes corrupted in every cell")
    hidden_weight: float = Field(0.7, ge=0, description="of the loss on corrupted entries")
    visible_weight: float = Field(0.3, ge=0, description="of the loss on the others")
    huber_delta: float = Field(1.0, gt=0)
    interventional_weight: float = Field(1.0, ge=0)
    interventional_loss: Literal["huber", "squared"] = "huber"
    interventional_ratio: Literal["printed", "inverted"] = Field("printed", description="printed: others / perturbed")
    interventional_gradient: bool = Field(True, description="let the interventional loss train the predictions too")
    interventional_min_cells: int = Field(1, ge=1)
    edges: Literal["directed", "undirected"] = Field(
        "directed",
        description="undirected: max(A, A^T), each pair once in panel order, as the released code exports it",
    )

    @property
    def needs_controls(self) -> bool:
        """Whether perturbed cells are useless without controls to compare them with."""
        return self.interventional_weight > 0


class CaTran(nn.Module):
    """The model of `CaTranConfig` over a panel of `n_genes`."""

    signed: ClassVar[bool] = False  # attention is positive: it does not tell activation from repression

    def __init__(self, config: CaTranConfig, n_genes: int, seed: int = 0):
        super().__init__()
        self.config = config
        d = config.embedding
        width = d + 1 if config.expression_input == "concatenate" else d
        self.embedding = nn.Parameter(torch.empty(n_genes, d))
        self.projection = nn.Linear(d, d) if config.projection else nn.Identity()
        self.input_linears = nn.ModuleList(nn.Linear(width, width) for _ in range(config.input_layers))
        self.input_norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(config.input_layers))
        self.attention_norm = nn.BatchNorm1d(width)
        self.middle = nn.Linear(width, width)
        self.middle_norm = nn.BatchNorm1d(width)
        self.output = nn.Sequential(*(nn.Linear(width, width) for _ in range(config.output_layers - 1)))
        self.last = nn.Linear(width, 1)
        rng = stream(seed, "init")
        fill(self.embedding, rng.normal(0.0, config.embedding_std, self.embedding.shape))
        init_normal(linears(self), config.linear_std, rng)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of one batch; their sum is what training minimises."""
        config = self.config
        hidden, corrupted = corrupt(batch, config.hidden)
        scores = self.scores(self.embedding[batch.genes])
        attention = scores.softmax(dim=1) if config.attention == "softmax" else scores.sigmoid()
        predicted = self.predict(corrupted, batch.genes, attention)
        error = huber(predicted - batch.expression, config.huber_delta)
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

    def scores(self, embedding: Float[Tensor, "genes d"]) -> Float[Tensor, "targets regulators"]:
        """Dot products of the (projected) embeddings: one shared projection, not scaled, diagonal kept."""
        u = self.projection(embedding)
        return u @ u.T

    def predict(
        self,
        x: Float[Tensor, "cells genes"],
        genes: Int64[Tensor, " genes"],
        attention: Float[Tensor, "targets regulators"],
    ) -> Float[Tensor, "cells genes"]:
        """Restored expression of the gene subset."""
        e = self.embedding[genes]
        if self.config.expression_input == "concatenate":
            h = torch.cat([x[:, :, None], e.expand(len(x), -1, -1)], dim=2)  # [cells, genes, d + 1]
        else:
            h = x[:, :, None] + e
        for linear, norm in zip(self.input_linears, self.input_norms, strict=True):
            h = over_channels(norm, linear(h))
        for _ in range(self.config.aggregations):
            h = over_channels(self.attention_norm, torch.einsum("ts,csk->ctk", attention, h))
        h = nn.functional.silu(over_channels(self.middle_norm, self.middle(h)))
        return self.last(self.output(h))[:, :, 0]

    @torch.no_grad()
    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Rows of the adjacency over the panel: attention of every target to these regulators; 0 for self."""
        u = self.projection(self.embedding)
        block = u[rows] @ u.T  # scores are symmetric: [regulators, targets]
        normaliser = torch.cat([(part @ u.T).logsumexp(dim=1) for part in u.split(1024)])  # of each target's row
        adjacency = (block - normaliser).exp()
        targets = torch.arange(len(u), device=u.device)
        if self.config.edges == "undirected":
            adjacency = torch.maximum(adjacency, (block - normaliser[rows, None]).exp())
            return adjacency * (targets > rows[:, None])
        return adjacency * (targets != rows[:, None])

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters are trained alike, weight decay on biases and BatchNorm included."""
        return {"networks": list(self.parameters())}


def over_channels(norm: nn.Module, h: Float[Tensor, "cells genes d"]) -> Float[Tensor, "cells genes d"]:
    """BatchNorm over the channels, statistics pooled over cells and genes."""
    return norm(h.flatten(0, 1)).unflatten(0, h.shape[:2])


def corrupt(batch: Batch, share: float) -> tuple[Bool[Tensor, "cells genes"], Float[Tensor, "cells genes"]]:
    """Hide exactly int(share * genes) genes of every cell; permute the hidden values among each other.

    The values of all cells and genes of one logical stream's share are pooled, so a hidden value is replaced by any
    hidden value of the share. One stream is the published form. Returns (which entries, the corrupted expression).
    """
    x = batch.expression
    n_hidden = int(share * x.shape[1])

    def choose(rng: np.random.Generator, rows: slice) -> np.ndarray:
        keys = rng.random((rows.stop - rows.start, x.shape[1]), dtype=np.float32)
        chosen = np.zeros(keys.shape, dtype=bool)
        np.put_along_axis(chosen, np.argpartition(keys, n_hidden - 1, axis=1)[:, :n_hidden], True, axis=1)
        return chosen

    hidden = batch.draw("hidden", choose) if n_hidden else torch.zeros_like(x, dtype=torch.bool)

    def permuted(rng: np.random.Generator, rows: slice) -> np.ndarray:
        return rng.permutation((rows.stop - rows.start) * n_hidden) + rows.start * n_hidden

    corrupted = x.clone()
    corrupted[hidden] = x[hidden][batch.draw("permutation", permuted)]
    return hidden, corrupted
