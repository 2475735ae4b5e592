"""The models. A model is two methods: `forward(batch)` gives named loss terms, `adjacency(rows)` a block of rows.

This is the only module that knows which kinds there are.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig

ModelConfig = Annotated[CaTranConfig | GRNVAEConfig, Field(discriminator="kind")]
CONFIGS: dict[str, type[CaTranConfig] | type[GRNVAEConfig]] = {"catran": CaTranConfig, "grn_vae": GRNVAEConfig}

Moments = tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]  # mean, standard deviation


@runtime_checkable
class Model(Protocol):
    """What training (the first method) and inference (the second) know of a model."""

    signed: ClassVar[bool]  # whether the sign of a weight tells activation from repression

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms; their sum is minimised."""

    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Rows of the network over the whole panel, 0 on the diagonal."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by group: "networks" and, where the model has one, "adjacency"."""


def build(config: ModelConfig, n_genes: int, moments: Callable[[], Moments], seed: int) -> CaTran | GRNVAE:
    """A fresh model; `moments` of the training cells are asked for only by models that standardise."""
    if isinstance(config, CaTranConfig):
        return CaTran(config, n_genes, seed)
    model = GRNVAE(config, n_genes, seed)
    model.standardise_with(*moments())
    return model
