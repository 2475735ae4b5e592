"""The settings of CaTran-D."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from grndist.config import Config


class CaTranDConfig(Config):
    """What the directed variant adds to CaTran, and how much of each; docs/experiments.md says what decided."""

    # How it is trained unless a run file says otherwise.
    run_defaults: ClassVar[Mapping[str, Any]] = {
        "expression": {"transform": "log1p"},
        "training": {
            "steps": 400,
            "cells_per_step": 1024,
            "genes_per_step": None,
            "optimizer": "adamw",
            "learning_rate": 0.05,
            "betas": (0.9, 0.99),
            "rate_over_time": "one_cycle",
        },
    }

    kind: Literal["catran_d"] = "catran_d"
    form: Literal["auto", "full", "bilinear", "attention"] = Field(
        "auto",
        description="of the weights W: full (the optimum over all W in closed form, from moments only), bilinear Q K^T "
        "(low rank) or attention (several signed heads), which have embeddings; auto: full from moments, bilinear from "
        "mini-batches",
    )
    embedding: int = Field(100, gt=0, description="width of the gene embeddings; the rank of the bilinear form")
    heads: int = Field(4, gt=0, description="of the attention, which deal the width of the embeddings among them")
    start: Literal["random", "svd"] = Field(
        "random",
        description="of the bilinear form: N(0, 0.3^2); svd: truncated SVD of the one-input regressions, from moments",
    )
    gain: float = Field(
        0.2, gt=0, description="rho, on standardised expression; a knocked-down gene's input is -1 instead"
    )
    ridge: float = Field(
        0.04,
        ge=0,
        description="l2 on W; on knock-downs it acts as it is, on expression like ridge / gain^2 per unit of variance",
    )
    strength: Literal["one", "observed"] = Field(
        "one", description="of a knock-down: one, or by how much the perturbed gene's own expression falls"
    )
    unmeasured: bool = Field(True, description="give perturbed genes that are not in the panel an input")
    own_perturbation: Literal["zeroed", "masked"] = Field(
        "zeroed",
        description="a perturbed gene as target in its own cells: its value is 0 there (what moments can do), or the "
        "entry is left out of the loss (mini-batches only)",
    )
    weight: float = Field(
        0.75, ge=0, description="of the model beside the difference of means, in the scores of perturbed regulators"
    )
    scores: Literal["posterior", "model"] = Field(
        "posterior",
        description="posterior: log odds of an edge from model and difference of means; model: the model's partial "
        "correlations alone",
    )

    @property
    def without_controls(self) -> str:
        """The setting that makes control cells unnecessary; empty where they are so as it is."""
        return "model.scores=model" if self.scores == "posterior" else ""
