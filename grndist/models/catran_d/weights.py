"""Forms of the weights W [targets, inputs] of CaTran-D; no gene has itself as input.

Axes: targets are genes of the panel, inputs those genes and then perturbed genes that were not measured. `forward` is
what a step of some genes trains, `block` a part of W over the whole panel; they differ where inputs compete.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

from grndist.models.layers import fill
from grndist.seeds import stream

Genes = Int64[Tensor, " _"]
INITIAL_STD = 0.3  # of embeddings
INITIAL_GAIN = 0.05  # of attention
LEAST = -1e30  # of a logarithm: a target without any input has weights 0, not NaN
TARGETS = 1024  # whose scores are held at a time, for all inputs


class Full(nn.Module):
    """W itself; it is solved, not trained (`solve`)."""

    trained: ClassVar[bool] = False
    weight: Tensor

    def __init__(self, n_genes: int, n_inputs: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_genes, n_inputs))

    def forward(self, targets: Genes, inputs: Genes) -> Float[Tensor, "targets inputs"]:
        """The block of W."""
        return self.weight[targets][:, inputs]

    block = forward

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """None: W is not made of embeddings."""
        return {}

    def of_targets(self) -> list[nn.Parameter]:
        """None: nothing is trained."""
        return []

    of_inputs = of_targets


class Bilinear(nn.Module):
    """W = Q K^T / sqrt(d), of rank d."""

    trained: ClassVar[bool] = True

    def __init__(self, n_genes: int, n_inputs: int, d: int, seed: int = 0):
        super().__init__()
        self.query = nn.Parameter(torch.empty(n_genes, d))
        self.key = nn.Parameter(torch.empty(n_inputs, d))
        rng = stream(seed, "init")
        for parameter in (self.query, self.key):
            fill(parameter, rng.normal(0.0, INITIAL_STD, parameter.shape))

    def start_from(self, weights: Float[np.ndarray, "targets inputs"], seed: int) -> None:
        """Start at the best approximation of `weights` of this rank: a truncated SVD, dealt evenly to Q and K."""
        d = self.query.shape[1]
        rank = min(d, *weights.shape)
        u, s, vt = randomized_svd(weights, rank, random_state=int(stream(seed, "svd").integers(2**31)))
        root = np.sqrt(s * np.sqrt(d))
        for parameter, vectors in ((self.query, u * root), (self.key, vt.T * root)):
            values = np.zeros(parameter.shape)
            values[:, :rank] = vectors
            fill(parameter, values)

    def forward(self, targets: Genes, inputs: Genes) -> Float[Tensor, "targets inputs"]:
        """The block of W."""
        products = self.query[targets] @ self.key[inputs].T / self.query.shape[1] ** 0.5
        return products.masked_fill(targets[:, None] == inputs, 0)

    block = forward

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """What a gene is as regulator and as target."""
        return {"regulator": self.key[: len(self.query)].detach(), "target": self.query.detach()}

    def of_targets(self) -> list[nn.Parameter]:
        """Parameters with a row a target."""
        return [self.query]

    def of_inputs(self) -> list[nn.Parameter]:
        """Parameters with a row an input."""
        return [self.key]


class Attention(nn.Module):
    """Signed attention of several heads.

    W = sqrt(G) sum_h exp(g_h[t]) softmax_s(q_h[t] . k_h[s] / sqrt(d) + b_h[s]) (a_h[t] . r_h[s]) / sqrt(d). Over some
    of the inputs the softmax is scaled by their share, which keeps weights comparable.
    """

    trained: ClassVar[bool] = True

    def __init__(self, n_genes: int, n_inputs: int, d: int, heads: int, seed: int = 0):
        super().__init__()
        self._normalisers: list[Tensor] | None = None  # of every target, by head
        width = max(d // heads, 1)  # of one head, per vector
        self.query, self.value = (nn.Parameter(torch.empty(n_genes, heads, width)) for _ in range(2))
        self.key, self.role = (nn.Parameter(torch.empty(n_inputs, heads, width)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(n_inputs, heads))
        self.log_gain = nn.Parameter(torch.full((n_genes, heads), float(np.log(INITIAL_GAIN))))
        rng = stream(seed, "init")
        for parameter in (self.query, self.value, self.key, self.role):
            fill(parameter, rng.normal(0.0, INITIAL_STD, parameter.shape))

    def forward(self, targets: Genes, inputs: Genes) -> Float[Tensor, "targets inputs"]:
        """W as if these inputs were all there are: what a step of some genes trains."""
        normalisers = [self._scores(targets, inputs, head).logsumexp(dim=1) for head in range(self.n_heads)]
        return len(inputs) / len(self.key) * self._block(targets, inputs, normalisers)

    def block(self, targets: Genes, inputs: Genes) -> Float[Tensor, "targets inputs"]:
        """The block of W, normalised over all inputs."""
        if self._normalisers is None or self.training:
            genes, everything = (torch.arange(len(p), device=targets.device) for p in (self.query, self.key))
            self._normalisers = [
                torch.cat([self._scores(part, everything, head).logsumexp(dim=1) for part in genes.split(TARGETS)])
                for head in range(self.n_heads)
            ]
        return self._block(targets, inputs, [one[targets] for one in self._normalisers])

    def train(self, mode: bool = True) -> "Attention":
        """As of any module; the normalisers of what was learnt before are forgotten."""
        self._normalisers = None
        return super().train(mode)

    @property
    def n_heads(self) -> int:
        """Number of heads."""
        return self.query.shape[1]

    def _scores(self, targets: Genes, inputs: Genes, head: int) -> Float[Tensor, "targets inputs"]:
        products = self.query[targets, head] @ self.key[inputs, head].T * self.query.shape[2] ** -0.5
        return (products + self.bias[inputs, head]).masked_fill(targets[:, None] == inputs, -torch.inf)

    def _block(self, targets: Genes, inputs: Genes, normalisers: list[Tensor]) -> Float[Tensor, "targets inputs"]:
        block = torch.zeros(len(targets), len(inputs)).to(self.query)
        for head, normaliser in enumerate(normalisers):
            attention = (self._scores(targets, inputs, head) - normaliser.clamp_min(LEAST)[:, None]).exp()
            sign = self.value[targets, head] @ self.role[inputs, head].T * self.query.shape[2] ** -0.5
            block = block + self.log_gain[targets, head, None].exp() * attention * sign
        return len(self.query) ** 0.5 * block

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """What a gene is as regulator and as target: the vectors that make the sign, all heads in a row."""
        return {"regulator": self.role[: len(self.query)].detach().flatten(1), "target": self.value.detach().flatten(1)}

    def of_targets(self) -> list[nn.Parameter]:
        """Parameters with a row a target."""
        return [self.query, self.value, self.log_gain]

    def of_inputs(self) -> list[nn.Parameter]:
        """Parameters with a row an input."""
        return [self.key, self.role, self.bias]
