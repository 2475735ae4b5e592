"""Several GRN-VAEs at once: the fast form with a leading dimension of replicates.

They differ in their parameters, cells and random numbers, and may differ in the weights of their losses and in the rate
of augmentation. Every line has its counterpart in `model` and `fast`, which say what it means.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grndist.data.stream.batches import Batches
from grndist.models.grn_vae import stacked_tables
from grndist.models.grn_vae.augmentation import Seen, augmented
from grndist.models.grn_vae.config import GRNVAEConfig
from grndist.models.grn_vae.equations import Latent, structural
from grndist.models.grn_vae.model import GRNVAE, standard_normal
from grndist.models.grn_vae.solve import Factor, Several
from grndist.models.grn_vae.stacked_tables import Layer, Tables, evaluate, tabulated
from grndist.objectives import gaussian_kl, sampled_kl

TAKEN: Mapping[str, object] = {"form": "fast", "solver": "lu", "prior": "standard"}
WEIGHTS = ("alpha", "beta", "classifier_weight", "augmentation")  # of each its own
SWITCHES = ("classifier_weight", "augmentation")  # ... but all 0 or none

# Where a step of several was found more than 1.3 times as fast as their steps one by one (scripts/bench_packing.py).
# With fewer genes the tables take most of a step, with more the products and the LU, and both are each replicate's own.
PAYS_FROM, PAYS_WITH_GENES, PAYS_UP_TO_CELLS = 4, range(150, 401), 128


def pays(replicates: int, n_genes: int, cells_per_step: int) -> bool:
    """Whether stacking is worth its memory."""
    return replicates >= PAYS_FROM and n_genes in PAYS_WITH_GENES and cells_per_step <= PAYS_UP_TO_CELLS


def why_not_stacked(configs: Sequence[GRNVAEConfig]) -> str:
    """Why models with these settings cannot be stacked, in words; empty where they can."""
    first = configs[0]
    for config in configs:
        for name, value in TAKEN.items():
            if getattr(config, name) != value:
                return f"model.{name}={getattr(config, name)} has no stacked form"
        if config.augmentation == "auto":
            return "model.augmentation=auto is chosen by pilots of one run"
        for name in GRNVAEConfig.model_fields:
            ours, theirs = getattr(first, name), getattr(config, name)
            if ours != theirs and (name not in WEIGHTS or (name in SWITCHES and 0 in (ours, theirs))):
                return f"model.{name} is {ours} and {theirs}"
    return ""


class StackedGRNVAE:
    """Models over the whole panel, their parameters stacked [replicates, ...]."""

    def __init__(self, models: Sequence[GRNVAE], parameters: Mapping[str, Tensor]):
        self.config = models[0].config
        self.parameters = parameters
        self.at = models[0].regulators
        self.mean, self.std = (
            torch.stack([getattr(model, name) for model in models])[:, None] for name in ("mean", "std")
        )
        self.encoder, self.decoder = self._layers("encoder"), self._layers("decoder")
        configs = [model.config for model in models]
        self.alpha, self.beta, self.classifier_weight, rates = (
            self.mean.new_tensor([getattr(config, name) for config in configs])
            for name in ("alpha", "beta", "classifier_weight", "rate")
        )
        self.rates = rates[:, None, None]
        if self.config.classifier_weight > 0:
            self.classifier = self._layers("classifier")
            self.zero_odds = torch.stack([model.zero_odds.detach() for model in models])[:, None, None]
        self._kept_tables: dict[str, Tables | None] = {}
        self._kept_factor: Factor | None = None
        self.share = models[0].share_of(self.mean.shape[-1])

    def losses(self, batches: Batches) -> dict[str, Float[Tensor, " replicates"]]:
        """The loss terms of every replicate's batch, as `GRNVAE.forward` gives them in training."""
        config = self.config
        seen = self._seen(batches)
        scored = batches.is_nonzero if config.loss_entries == "nonzero" else torch.ones_like(batches.is_nonzero)
        latent, decoded = self._restored(seen, batches)
        cells, n_entries = seen.x.shape[1], seen.x[0].numel()
        mean, log_var = latent.taken_out[:, :cells], latent.taken_out[:, cells:]
        squares = ((seen.target - decoded).square() * scored).sum((1, 2))
        terms = {
            "reconstruction": squares / scored.sum((1, 2)).clamp_min(1),
            "kl": self.beta * (self._divergence(latent.z, mean, log_var).sum((1, 2)) / n_entries),
        }
        if batches.epoch >= config.sparse_delay:
            terms["sparse"] = self.alpha * latent.size * self.share
        if config.classifier_weight > 0 and seen.dropped is not None:
            guess = evaluate(self.classifier, latent.z)[:, 0]
            surprise = nn.functional.binary_cross_entropy_with_logits(
                guess, seen.dropped.to(guess), pos_weight=self.zero_odds, reduction="none"
            )
            terms["classifier"] = self.classifier_weight * (surprise.sum((1, 2)) / n_entries)
        return terms

    def _layers(self, network: str) -> list[Layer]:
        parts = [name.split(".")[1] for name in self.parameters if name.startswith(f"{network}.") and "bias" in name]
        return [tuple(self.parameters[f"{network}.{at}.{part}"] for part in ("weight", "bias")) for at in parts]  # type: ignore[misc]

    def _seen(self, batches: Batches) -> Seen:
        augment = self.config.rate > 0 and (self.config.augment_adjacency_epochs or self._trains_networks)
        return augmented(batches, self.mean, self.std, self.config, self.rates if augment else None)

    @property
    def _trains_networks(self) -> bool:
        return self.encoder[0][0].requires_grad

    def _restored(self, seen: Seen, batches: Batches) -> tuple[Latent, Float[Tensor, "replicates cells genes"]]:
        noise = batches.draw("latent", lambda rng, rows: standard_normal(rng, rows, seen.x.shape[-1])).to(seen.x)
        rows = self._by_table("encoder", self.encoder, seen.x).flatten(1, 2)
        a = self.parameters["weight"]
        latent = structural(rows, noise, a, self.at, self._factor(a))
        return latent, self._by_table("decoder", self.decoder, latent.put_back)[:, 0]

    def _divergence(self, z: Tensor, mean: Tensor, log_var: Tensor) -> Float[Tensor, "replicates cells genes"]:
        zero = mean.new_zeros(1, 1, 1)
        if self.config.kl == "closed":
            return gaussian_kl(mean, log_var, zero, zero)
        return sampled_kl(z, mean, log_var, zero, zero)

    def _by_table(
        self, name: str, layers: Sequence[Layer], x: Tensor
    ) -> Float[Tensor, "replicates outputs cells genes"]:
        """Tables are kept while the networks are frozen, and the places remain where they were."""
        if self._trains_networks:
            self._kept_tables = {}
            return stacked_tables.outputs(layers, x, tabulated(layers, x, self.config.table_tolerance))
        tables = self._kept_tables.get(name)
        if tables is None or not tables.cover(x):
            tables = self._kept_tables[name] = tabulated(layers, x, self.config.table_tolerance)
        return stacked_tables.outputs(layers, x, tables)

    def _factor(self, a: Float[Tensor, "replicates regulators genes"]) -> Factor:
        """Kept while A is frozen."""
        core = a.detach() if self.at is None else a.detach()[..., self.at]
        if a.requires_grad:
            self._kept_factor = None
            return Several(core)
        if self._kept_factor is None:
            self._kept_factor = Several(core)
        return self._kept_factor
