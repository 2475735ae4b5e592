"""The settings of CaTran: every choice on which the paper and its released code differ."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from grndist.config import Config


class CaTranConfig(Config):
    """The defaults are the paper's (preset `paper`); the presets say where every value comes from."""

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
    form: Literal["fast", "plain"] = Field(
        "fast", description="the same numbers by algebra, or layer by layer; parameters and checkpoints are the same"
    )
    embedding: int = Field(40, gt=0, description="width of the gene embeddings")
    expression_input: Literal["concatenate", "add"] = Field(
        "concatenate", description="join expression to the embedding as one more channel, or add it to every channel"
    )
    projection: bool = Field(True, description="project the embeddings before the dot product")
    attention: Literal["softmax", "sigmoid"] = Field("softmax", description="in training; extraction is always softmax")
    attention_threshold: float = Field(
        0.0,
        ge=0,
        description="attention below this multiple of its row's mean is 0, in training and extraction; the rest is not "
        "scaled up. 0: soft attention. The paper's start is nearly uniform, so 1 or more leaves nothing to learn from",
    )
    input_layers: int = Field(2, ge=1, description="Linear + BatchNorm pairs before the attention")
    aggregations: int = Field(1, ge=1, description="times the same attention and BatchNorm are applied")
    output_layers: Literal[1, 2] = Field(2, description="Linear layers after the activation")
    embedding_std: float = Field(0.001, gt=0, description="initial standard deviation of the embeddings")
    linear_std: float = Field(0.001, gt=0, description="initial standard deviation of every Linear weight")
    hidden: float = Field(0.8, ge=0, lt=1, description="share of genes corrupted in every cell")
    corruption: Literal["permute", "permute_within_gene", "zero"] = Field(
        "permute",
        description="hidden values change places with any other of their logical stream's share of the batch, with "
        "others of their gene there, or become 0",
    )
    hidden_weight: float = Field(0.7, ge=0, description="of the loss on corrupted entries")
    visible_weight: float = Field(0.3, ge=0, description="of the loss on the others")
    reconstruction_loss: Literal["huber", "squared"] = "huber"
    huber_delta: float = Field(1.0, gt=0, description="of the reconstruction loss, with reconstruction_loss huber")
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
    def without_controls(self) -> str:
        """The setting that makes control cells unnecessary; empty where they are so as it is."""
        return "model.interventional_weight=0" if self.interventional_weight > 0 else ""
