"""Checkpoints of models with weights that are worth ranking."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from grndist.models import AnyModel
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.catran_d import CaTranD, CaTranDConfig, Sizes
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.optim import OptimizerConfig, Optimizers
from grndist.training import checkpoint
from grndist.training.loop import State

N = 11
GENES = [f"g{i}" for i in range(N)]
UNMEASURED = ["x0", "x1"]  # regulators of `catran_d` that are not in the panel
OPTIMIZER = OptimizerConfig(optimizer="adam", learning_rate=1e-3)


def saved(folder: Path, model: AnyModel, step: int = 0, regulators: list[str] | None = None) -> Path:
    state = State(model, Optimizers(OPTIMIZER, model.parameter_groups()), step)
    about = checkpoint.Description(
        step, {"model": model.config.model_dump(mode="json")}, GENES, "digest", regulators,
        UNMEASURED if isinstance(model, CaTranD) else None,
    )  # fmt: skip
    return checkpoint.save(folder, state, about)


def run_of(folder: Path, model: AnyModel, regulators: list[str] | None = None) -> Path:
    """A run directory with one checkpoint."""
    saved(folder / "checkpoints", model, regulators=regulators)
    (folder / "config.yaml").touch()
    return folder


def grn_vae() -> GRNVAE:
    model = GRNVAE(GRNVAEConfig(), N)
    with torch.no_grad():
        model.weight.copy_(torch.randn(N, N, generator=torch.Generator().manual_seed(0)))
    return model


def catran(edges: Literal["directed", "undirected"] = "directed") -> CaTran:
    return CaTran(CaTranConfig(embedding=4, embedding_std=0.5, linear_std=0.5, edges=edges), N)


def catran_d() -> CaTranD:
    config = CaTranDConfig(form="bilinear", embedding=4, scores="model")
    return CaTranD(config, Sizes(genes=N, inputs=N + len(UNMEASURED), labels=1, guides=1, effects=0))


def adjacency(model: AnyModel, rows: int = 99) -> np.ndarray:
    """All of it, computed in blocks of `rows`, which decide the last bits of matrix products."""
    return torch.cat([model.adjacency(part) for part in torch.arange(model.n_regulators).split(rows)]).numpy()
