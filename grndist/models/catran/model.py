"""The parameters of CaTran and what it promises: loss terms of a batch, rows of the network.

Attention does not depend on the cell. Its rows are targets, its columns regulators, so the adjacency is its transpose.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.models.affine import Moments
from grndist.models.catran import fast, plain
from grndist.models.catran.config import CaTranConfig
from grndist.models.catran.corruption import corrupt
from grndist.models.layers import fill, init_normal, linears, refuse_several
from grndist.seeds import stream
from grndist.workers import ALONE, Workers


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
        self._normalised: list[tuple[int, int]] = []  # the parameters that `_kept` belongs to
        self._kept = torch.empty(0)
        rng = stream(seed, "init")
        fill(self.embedding, rng.normal(0.0, config.embedding_std, self.embedding.shape))
        init_normal(linears(self), config.linear_std, rng)

    def forward(self, batch: Batch, workers: Workers = ALONE) -> dict[str, Tensor]:
        """The loss terms of one batch, this worker's share of them; their sum is what training minimises.

        Raises:
            ModelError: the plain form is to share its cells.
        """
        config, genes = self.config, batch.genes
        hidden, corrupted = corrupt(batch, config.hidden, config.corruption)
        attention, embedding = self.attention(genes), self.embedding[genes]
        if config.form == "plain":
            refuse_several(workers)
            predicted = plain.predict(self, corrupted, embedding, attention)
            return plain.losses(config, predicted, batch, hidden, attention)
        with torch.autocast(corrupted.device.type, enabled=False):  # sums must be exact
            cells = fast.Cells.of(corrupted, batch.perturbed, len(self.embedding), workers)
            seen = Moments.around(cells.mean, cells.number, corrupted, workers)
        predicted = fast.predict(self, *seen, embedding, attention)
        return fast.losses(config, predicted, batch, hidden, attention, cells, workers)

    def attention(self, genes: Int64[Tensor, " genes"]) -> Float[Tensor, "genes genes"]:
        """Weight of every regulator (column) for every target (row) of the gene subset, in full precision."""
        embedding = self.embedding[genes]
        with torch.autocast(embedding.device.type, enabled=False):
            scores = self.scores(embedding)
            weights = scores.softmax(dim=1) if self.config.attention == "softmax" else scores.sigmoid()
        threshold = self.config.attention_threshold
        return weights * (weights >= threshold * weights.mean(1, keepdim=True)) if threshold else weights

    def scores(self, embedding: Float[Tensor, "genes d"]) -> Float[Tensor, "genes genes"]:
        """Dot products of the (projected) embeddings: one shared projection, not scaled, diagonal kept."""
        u = self.projection(embedding)
        return u @ u.T

    def predict(
        self,
        x: Float[Tensor, "cells genes"],
        genes: Int64[Tensor, " genes"],
        attention: Float[Tensor, "genes genes"],
    ) -> Float[Tensor, "cells genes"]:
        """Restored expression of the gene subset."""
        if self.config.form == "plain":
            return plain.predict(self, x, self.embedding[genes], attention)
        with torch.autocast(x.device.type, enabled=False):
            seen = Moments.of(x)
        return fast.predict(self, *seen, self.embedding[genes], attention)

    @torch.no_grad()
    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Rows of the adjacency over the panel: attention of every target to these regulators; 0 for self.

        With undirected edges it is max(A, A^T), which has every pair twice.
        """
        u = self.projection(self.embedding)
        block = u[rows] @ u.T  # scores are symmetric: [regulators, targets]
        normaliser = self._normaliser(u)
        adjacency = self._thresholded(block - normaliser)
        targets = torch.arange(len(u), device=u.device)
        if self.config.edges == "undirected":
            adjacency = torch.maximum(adjacency, self._thresholded(block - normaliser[rows, None]))
        return adjacency * (targets != rows[:, None])

    def _normaliser(self, u: Float[Tensor, "genes d"]) -> Float[Tensor, " targets"]:
        """The logarithm of each target's sum over regulators; after `eval()` computed once for all blocks of rows."""
        state = [(p.data_ptr(), p._version) for p in (self.embedding, *self.projection.parameters())]
        if self.training or self._normalised != state:
            self._kept = torch.cat([(part @ u.T).logsumexp(dim=1) for part in u.split(1024)])
            self._normalised = state
        return self._kept

    def _thresholded(self, logarithm: Float[Tensor, "regulators targets"]) -> Float[Tensor, "regulators targets"]:
        threshold = self.config.attention_threshold
        if threshold == 0:
            return logarithm.exp()
        lowest = math.log(threshold / len(self.embedding))  # the mean of a softmax's row is 1 / genes
        return logarithm.exp() * (logarithm >= lowest)

    @property
    def n_regulators(self) -> int:
        """The genes of the panel."""
        return len(self.embedding)

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """What was learned of every gene, before the projection."""
        return {"embedding": self.embedding.detach()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters are trained alike, weight decay on biases and BatchNorm included."""
        return {"networks": list(self.parameters())}

    def touched_rows(self, genes: Int64[Tensor, " genes"]) -> list[tuple[nn.Parameter, Int64[Tensor, " rows"]]]:
        """The embeddings of a step's genes."""
        return [(self.embedding, genes)]
