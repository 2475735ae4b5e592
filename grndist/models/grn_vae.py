"""GRN-VAE: a variational autoencoder whose latent layer is the regulatory network. DAZZLE is a preset of it.

A linear structural equation model on rows, h = hA + z: the encoder removes regulation, z = h(I - A), the decoder puts
it back, so A is learned because reconstruction needs it. After DeepSEM (Shu et al. 2021), GRN-VAE (Zhu and Slonim,
bioRxiv 2023.01.26.525733) and DAZZLE (grn-dazzle 0.0.2). Encoder and decoder are functions of ONE number, shared by
all genes and cells. This is the plain form with an explicit inverse: the definition of the model.

Adjacency A: rows regulators, columns targets, signed (positive activates).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from grndist.config import Config
from grndist.data.stream.batch import Batch
from grndist.models.layers import fill, init_xavier, linears, scalar_network
from grndist.objectives import gaussian_kl, masked_mean
from grndist.seeds import stream


class GRNVAEConfig(Config):
    """The family's settings; the defaults are GRN-VAE's at the time of its paper."""

    # What the paper prescribes for the run around the model; a run file overrides it.
    run_defaults: ClassVar[Mapping[str, Any]] = {
        "expression": {"transform": "log1p"},
        "training": {
            "epochs": 120,
            "cells_per_step": 64,
            "genes_per_step": None,
            "optimizer": "rmsprop",
            "learning_rate": 1e-4,
            "adjacency_learning_rate": 2e-5,
            "schedule": "alternating",
        },
    }

    kind: Literal["grn_vae"] = "grn_vae"
    width: int = Field(128, gt=0, description="of the encoder and decoder networks")
    loss_entries: Literal["nonzero", "all"] = Field("nonzero", description="which entries are reconstructed")
    augmentation: float = Field(0.1, ge=0, lt=1, description="share of entries set to zero in every step")
    augment_adjacency_epochs: bool = Field(False, description="augment also in epochs that train only the adjacency")
    augmentation_rescale: bool = Field(
        False, description="divide the surviving values by 1 - augmentation, as the released code of January 2023 does"
    )
    beta: float = Field(1.0, ge=0, description="weight of the KL divergence, a mean over entries")
    alpha: float = Field(100.0, ge=0, description="weight of the sparse loss, sum |A| / genes^2")
    sparse_delay: int = Field(30, ge=0, description="epochs before the sparse loss is added")
    classifier_weight: float = Field(0.0, ge=0, description="chi, of DAZZLE's classifier of augmented zeros; 0: none")
    adjacency_noise: Literal["uniform", "normal"] = Field(
        "uniform", description="start at 1/(G-1) + U[0, 2e-4], or + 1e-4 + N(0, 1e-8) as grnvae of February 2023"
    )

    @model_validator(mode="after")
    def _classifier_has_zeros(self) -> "GRNVAEConfig":
        if self.classifier_weight > 0 and self.augmentation == 0:
            raise ValueError("classifier_weight > 0 needs augmentation > 0: there are no augmented zeros to classify")
        return self

    @property
    def without_controls(self) -> str:
        """Empty: the model does not look at perturbations."""
        return ""


class GRNVAE(nn.Module):
    """The model of `GRNVAEConfig` over a panel of `n_genes`."""

    signed: ClassVar[bool] = True

    mean: Tensor  # [genes], of the training cells
    std: Tensor

    def __init__(self, config: GRNVAEConfig, n_genes: int, seed: int = 0):
        super().__init__()
        if n_genes < 2:  # 1 / (G - 1)
            raise ValueError("a network needs at least two genes")
        self.config = config
        self.weight = nn.Parameter(torch.empty(n_genes, n_genes))  # [regulators, targets]; the diagonal is never used
        self.encoder = scalar_network(config.width, 2)
        self.decoder = scalar_network(config.width, 1)
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("std", torch.ones(n_genes))
        rng = stream(seed, "init")
        init_xavier(linears(self.encoder, self.decoder), rng)
        noise = rng.uniform(0, 2e-4, (n_genes, n_genes))
        if config.adjacency_noise == "normal":
            noise = 1e-4 + rng.normal(0, 1e-4, (n_genes, n_genes))
        fill(self.weight, 1 / (n_genes - 1) + noise)
        if config.classifier_weight > 0:
            self.classifier = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1))
            init_xavier(linears(self.classifier), rng)
            odds = torch.tensor((1 - config.augmentation) / config.augmentation)
            self.zero_odds = nn.Parameter(odds, requires_grad=False)  # weight of augmented entries; frozen

    def standardise_with(self, mean: Float[np.ndarray, " genes"], std: Float[np.ndarray, " genes"]) -> None:
        """Set the moments that inputs are z-scored with; a constant gene's z-score is 0."""
        fill(self.mean, mean)
        fill(self.std, np.where(std > 0, std, 1.0))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of one batch; their sum is what training minimises."""
        config = self.config
        dropped, x = self.augment(batch)
        a = self.masked_weight(batch.genes)
        eye = torch.eye(len(a), dtype=x.dtype, device=x.device)

        posterior = self.encoder(x[:, :, None]).unbind(dim=2)  # mean and log-variance, [cells, genes] each
        mean, log_var = (channel @ (eye - a) for channel in posterior)
        noise = batch.draw("latent", lambda rng, rows: _normal(rng, rows, x.shape[1])).to(x)
        z = mean + (0.5 * log_var).exp() * noise
        restored = self.decoder((z @ torch.linalg.inv(eye - a))[:, :, None])[:, :, 0]

        scored = batch.is_nonzero if config.loss_entries == "nonzero" else torch.ones_like(batch.is_nonzero)
        terms = {
            "reconstruction": masked_mean((x - restored).square(), scored),
            "kl": config.beta * gaussian_kl(mean, log_var).mean(),
        }
        if batch.epoch >= config.sparse_delay:
            terms["sparse"] = config.alpha * a.abs().sum() / len(a) ** 2
        if config.classifier_weight > 0:
            guess = self.classifier(z[:, :, None])[:, :, 0]
            terms["classifier"] = config.classifier_weight * nn.functional.binary_cross_entropy_with_logits(
                guess, dropped.to(guess), pos_weight=self.zero_odds
            )
        return terms

    def augment(self, batch: Batch) -> tuple[Tensor, Float[Tensor, "cells genes"]]:
        """Set random entries to zero, then z-score: (which entries, the standardised expression)."""
        rate = self.config.augmentation
        x, mean, std = batch.expression, self.mean[batch.genes], self.std[batch.genes]
        trains_networks = next(self.encoder.parameters()).requires_grad  # false in epochs of the adjacency alone
        if rate == 0 or not (self.config.augment_adjacency_epochs or trains_networks):
            return torch.zeros_like(batch.is_nonzero), (x - mean) / std
        dropped = batch.draw("augmentation", lambda rng, rows: _uniform(rng, rows, x.shape[1]) < rate)
        kept = x.masked_fill(dropped, 0)
        if self.config.augmentation_rescale:
            kept = kept / (1 - rate)
        return dropped, (kept - mean) / std

    def masked_weight(self, genes: Int64[Tensor, " genes"]) -> Float[Tensor, "regulators targets"]:
        """A over a gene subset, without its diagonal."""
        a = self.weight[genes[:, None], genes] if len(genes) < len(self.weight) else self.weight
        return a * (1 - torch.eye(len(a), dtype=a.dtype, device=a.device))

    @torch.no_grad()
    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Rows of A over the whole panel; no self-regulation."""
        targets = torch.arange(len(self.weight), device=rows.device)
        return self.weight[rows] * (targets != rows[:, None])

    @property
    def n_regulators(self) -> int:
        """The genes of the panel."""
        return len(self.weight)

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """None: genes have no vectors here."""
        return {}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The networks and the adjacency, which have learning rates and epochs of their own."""
        networks = [p for name, p in self.named_parameters() if name != "weight" and p.requires_grad]
        return {"networks": networks, "adjacency": [self.weight]}


def _normal(rng: np.random.Generator, rows: slice, n_genes: int) -> np.ndarray:
    return rng.standard_normal((rows.stop - rows.start, n_genes), dtype=np.float32)


def _uniform(rng: np.random.Generator, rows: slice, n_genes: int) -> np.ndarray:
    return rng.random((rows.stop - rows.start, n_genes), dtype=np.float32)
