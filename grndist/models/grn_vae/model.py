"""GRN-VAE: a variational autoencoder whose latent layer is the regulatory network. DAZZLE and DeepSEM are presets.

A linear structural equation model on rows, h = hA + z: the encoder removes regulation, z = h(I - A), the decoder puts
it back, so A is learned because reconstruction needs it. After DeepSEM (Shu et al. 2021), GRN-VAE (Zhu and Slonim,
bioRxiv 2023.01.26.525733) and DAZZLE (grn-dazzle 0.0.2). Encoder and decoder are functions of ONE number, shared by
all genes and cells.

Adjacency A: rows regulators, columns targets, signed (positive activates). A step with a gene subset S trains A[S, S]
as if its genes were all there are: an effect that passes through a gene outside S looks like a direct one.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.models.grn_vae import fast, plain
from grndist.models.grn_vae.augmentation import Seen, augmented, standardised
from grndist.models.grn_vae.config import GRNVAEConfig
from grndist.models.grn_vae.plain import Restored
from grndist.models.grn_vae.solve import Factor, Stale, lu
from grndist.models.layers import fill, init_xavier, linears, refuse_several, scalar_network
from grndist.objectives import gaussian_kl, sampled_kl
from grndist.optim import BlockParameter
from grndist.parallel import pieces
from grndist.seeds import stream
from grndist.workers import ALONE, Workers

ROWS = 64  # of A that are drawn at a time, in float64


class GRNVAE(nn.Module):
    """The model of `GRNVAEConfig` over a panel of `n_genes`, of which `regulators` (all, if None) may regulate."""

    signed: ClassVar[bool] = True

    mean: Tensor  # [genes], of the training cells
    std: Tensor
    regulators: Tensor | None  # [regulators], panel columns, ascending

    def __init__(
        self, config: GRNVAEConfig, n_genes: int, seed: int = 0, regulators: Int64[Tensor, " regulators"] | None = None
    ):
        super().__init__()
        if n_genes < 2:  # 1 / (G - 1)
            raise ValueError("a network needs at least two genes")
        rate = config.rate
        self.config = config
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("std", torch.ones(n_genes))
        self.register_buffer("regulators", None if regulators is None else regulators.clone())
        n_rows = n_genes if regulators is None else len(regulators)
        self.weight = BlockParameter(torch.empty(n_rows, n_genes))  # [regulators, targets], 0 on the diagonal
        self.encoder = scalar_network(config.width, 2, inputs=2 if config.prior == "networks" else 1)
        self.decoder = scalar_network(config.width, 1)
        rng = stream(seed, "init")
        init_xavier(linears(self.encoder, self.decoder), rng)
        self._start_adjacency(rng)
        if config.classifier_weight > 0:
            self.classifier = scalar_network(1, 1)
            init_xavier(linears(self.classifier), rng)
            odds = torch.tensor((1 - rate) / rate)
            self.zero_odds = nn.Parameter(odds, requires_grad=False)  # weight of augmented entries; frozen
        if config.prior == "networks":
            self.prior_networks = nn.ModuleList(_of_the_class(config.width, n_genes) for _ in range(2))
            self.category = _category(n_genes, config.width)  # with one class, as published, it always says 1
            init_xavier(linears(self.prior_networks, self.category), rng)
        self._tables = fast.Tables(config.table_tolerance), fast.Tables(config.table_tolerance)
        self._kept: tuple[tuple[int, int], Factor] | None = None  # of the whole A, and which A that was
        self._stale = Stale()
        self.register_load_state_dict_post_hook(_forget_self_regulation)

    def standardise_with(self, mean: Float[np.ndarray, " genes"], std: Float[np.ndarray, " genes"]) -> None:
        """Set the moments that inputs are z-scored with; a constant gene's z-score is 0."""
        fill(self.mean, mean)
        fill(self.std, np.where(std > 0, std, np.inf))

    def forward(self, batch: Batch, workers: Workers = ALONE) -> dict[str, Tensor]:
        """The loss terms of one batch, this worker's share of them; their sum is what training minimises.

        Raises:
            ModelError: the plain form is to share its cells.
        """
        config = self.config
        if config.form == "plain":
            refuse_several(workers)
        seen = self._seen(batch)
        found = self._restored(seen, batch)
        scored = batch.is_nonzero if config.loss_entries == "nonzero" else torch.ones_like(batch.is_nonzero)
        counts = torch.stack([scored.sum(), scored.new_tensor(scored.numel(), dtype=torch.int64)])
        n_scored, n_entries = (int(count) for count in workers.total(counts)[0].tolist())
        terms = {
            "reconstruction": ((seen.target - found.x).square() * scored).sum() / max(n_scored, 1),
            "kl": config.beta * (self._divergence(found).sum() / n_entries),
        }
        if batch.epoch >= config.sparse_delay:
            terms["sparse"] = config.alpha * found.size * self.share_of(len(batch.genes)) / workers.count
        if config.classifier_weight > 0 and seen.dropped is not None:
            guess = plain.network_of_one_number(self.classifier, found.z)[0]
            surprise = nn.functional.binary_cross_entropy_with_logits(
                guess, seen.dropped.to(guess), pos_weight=self.zero_odds, reduction="sum"
            )
            terms["classifier"] = config.classifier_weight * (surprise / n_entries)
        return terms

    def _seen(self, batch: Batch) -> Seen:
        """The batch, augmented in epochs that train the networks (and the others, where the settings say so)."""
        trains_networks = next(self.encoder.parameters()).requires_grad
        augment = self.training and (self.config.augment_adjacency_epochs or trains_networks)
        rate = self.config.rate if augment and self.config.rate > 0 else None
        return augmented(batch, self.mean[batch.genes], self.std[batch.genes], self.config, rate)

    def _restored(self, seen: Seen, batch: Batch) -> Restored:
        noise = batch.draw("latent", lambda rng, rows: standard_normal(rng, rows, seen.x.shape[1])).to(seen.x)
        a, at = self.block(batch.genes)
        with torch.autocast(seen.x.device.type, enabled=False):  # I - A is too close to singular for half precision
            given = self.encoder, self.decoder, seen.x, noise, a, at, self.prior(batch.genes)
            if self.config.form == "plain":
                return plain.restored(*given)
            return fast.restored(*given, self._factor(a if at is None else a[:, at]), self._tables)

    def _divergence(self, found: Restored) -> Float[Tensor, "cells genes"]:
        """Of the posterior of z from its prior."""
        zero = found.mean.new_zeros(1, 1)
        mean, log_var = (zero, zero) if found.prior is None else found.prior[:, None]
        if self.config.kl == "closed":
            return gaussian_kl(found.mean, found.log_var, mean, log_var)
        return sampled_kl(found.z, found.mean, found.log_var, mean, log_var)

    def prior(self, genes: Int64[Tensor, " genes"]) -> Float[Tensor, "2 genes"] | None:
        """DeepSEM's mean and log-variance of z, before regulation is taken out; None: z is of N(0, I)."""
        if self.config.prior == "standard":
            return None
        one = self.mean.new_ones(1)
        return torch.stack([network(one)[genes] for network in self.prior_networks])

    def share_of(self, n: int) -> float:
        """Weight of a sum over A[S, S] with n genes, such that its mean over subsets is sum |A| / genes^2."""
        genes = len(self.mean)
        return (genes - 1) / genes / max(n * (n - 1), 1)

    def block(
        self, genes: Int64[Tensor, " genes"]
    ) -> tuple[Float[Tensor, "regulators genes"], Int64[Tensor, " regulators"] | None]:
        """A[S, S] of a gene subset: its regulators' rows, and their columns in it (None: every gene regulates)."""
        if len(genes) == len(self.mean):
            return self.weight.take(None, None), self.regulators
        if self.regulators is None:
            return self.weight.take(genes, genes), None
        rows = torch.isin(self.regulators, genes).nonzero()[:, 0]
        return self.weight.take(rows, genes), torch.searchsorted(genes, self.regulators[rows])

    def _factor(self, core: Float[Tensor, "regulators regulators"]) -> Factor:
        """Of I - `core`; kept while A is frozen, as in epochs of the networks alone."""
        if self.config.solver == "iterative" and len(core) == len(self.weight):
            return self._stale.factor(core.detach())
        state = (self.weight.data_ptr(), self.weight._version)
        if self._kept is not None and self._kept[0] == state and len(core) == len(self.weight):
            return self._kept[1]
        self._kept = None  # free it before there is another
        factor = lu(core.detach())
        trained = self.weight.requires_grad and torch.is_grad_enabled()
        if not trained and len(core) == len(self.weight):
            self._kept = state, factor
        return factor

    @torch.no_grad()
    def posterior(
        self, expression: Float[Tensor, "cells genes"]
    ) -> tuple[Float[Tensor, "cells genes"], Float[Tensor, "cells genes"]]:
        """Mean and standard deviation of z given cells over the whole panel, nothing augmented."""
        x = standardised(expression, self.mean, self.std, self.config.clip)
        by_table = self.config.form == "fast"
        encoded = self._tables[0].outputs(self.encoder, x) if by_table else plain.network_of_one_number(self.encoder, x)
        mean, log_var = (
            channel - (channel if self.regulators is None else channel[:, self.regulators]) @ self.weight
            for channel in encoded
        )
        return mean, (0.5 * log_var).exp()

    @torch.no_grad()
    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Rows of A over the whole panel; no self-regulation, 0 for a gene that may not regulate."""
        targets = torch.arange(len(self.mean), device=rows.device)
        if self.regulators is None:
            return self.weight[rows] * (targets != rows[:, None])
        found = self.weight.new_zeros(len(rows), len(targets))
        may = torch.isin(rows, self.regulators)
        found[may] = self.weight[torch.searchsorted(self.regulators, rows[may])]
        return found * (targets != rows[:, None])

    @property
    def n_regulators(self) -> int:
        """The genes of the panel."""
        return len(self.mean)

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """None: genes have no vectors here."""
        return {}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The networks and the adjacency, which have learning rates and epochs of their own."""
        networks = [p for name, p in self.named_parameters() if name != "weight" and p.requires_grad]
        return {"networks": networks, "adjacency": [self.weight]}

    def touched_rows(self, genes: Int64[Tensor, " genes"]) -> list[tuple[nn.Parameter, Int64[Tensor, " rows"]]]:
        """What DeepSEM's prior has of every gene, at a step's genes."""
        if self.config.prior == "standard":
            return []
        last = [linears(network)[-1] for network in self.prior_networks]
        return [(parameter, genes) for layer in last for parameter in layer.parameters()]

    def _start_adjacency(self, rng: np.random.Generator) -> None:
        """1/(G-1) and a little noise, which breaks the symmetry."""
        n_rows, n_genes = self.weight.shape
        for part in pieces(n_rows, ROWS):
            shape = (part.stop - part.start, n_genes)
            noise = rng.uniform(0, 2e-4, shape)
            if self.config.adjacency_noise == "normal":
                noise = 1e-4 + rng.normal(0, 1e-4, shape)
            fill(self.weight[part], 1 / (n_genes - 1) + noise)
        _forget_self_regulation(self)


@torch.no_grad()
def _forget_self_regulation(model: GRNVAE, *loaded: object) -> None:
    """Make the diagonal 0, where training leaves it; older checkpoints have another."""
    own = torch.arange(len(model.weight), device=model.weight.device)
    model.weight[own, own if model.regulators is None else model.regulators] = 0


def _of_the_class(width: int, n_genes: int) -> nn.Sequential:
    """DeepSEM's prior network: from the class, of which there is one, to a number per gene."""
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, n_genes))


def _category(n_genes: int, width: int) -> nn.Sequential:
    """DeepSEM's network from a cell to the logit of its class."""
    return nn.Sequential(nn.Linear(n_genes, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))


def standard_normal(rng: np.random.Generator, rows: slice, n_genes: int) -> np.ndarray:
    """Noise of the latent layer."""
    return rng.standard_normal((rows.stop - rows.start, n_genes), dtype=np.float32)
