"""The settings of the family: every choice on which DeepSEM, GRN-VAE and DAZZLE differ, papers and released code."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from grndist.config import Config


class GRNVAEConfig(Config):
    """The defaults are GRN-VAE's at the time of its paper (preset `grn_vae`); the presets say what others change."""

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
    form: Literal["fast", "plain"] = Field(
        "fast", description="the same model by tables and solves, or layer by layer with an inverse; checkpoints agree"
    )
    table_tolerance: float = Field(
        1e-6,
        ge=0,
        description="largest relative error of the tables that stand for the networks of one number, in values and "
        "slopes; 0: no tables. Only the fast form has them",
    )
    solver: Literal["lu", "iterative"] = Field(
        "lu",
        description="how the fast form applies (I - A)^-1: by an LU of every A, or by iterations from an older one, "
        "which pays from 64 genes a cell of the step on; a resumed run then agrees to rounding only",
    )
    width: int = Field(128, gt=0, description="of the encoder and decoder networks")
    zscore: Literal["all", "nonzero"] = Field(
        "all", description="mean and deviation of a gene are taken over all cells, or those in which it is not zero"
    )
    clip: float | None = Field(None, gt=0, description="largest z-score, either sign; DeepSEM with ChIP-seq: 10")
    loss_entries: Literal["nonzero", "all"] = Field("nonzero", description="which entries are reconstructed")
    reconstruction_target: Literal["augmented", "clean"] = Field(
        "augmented", description="augmented: an entry that augmentation made zero is to be restored as zero"
    )
    augmentation: float | Literal["auto"] = Field(
        0.1, description="share of entries set to zero in every step; auto: pilots before the training choose it"
    )
    pilot_epochs: int = Field(
        50, gt=0, description="length of a pilot of augmentation auto, unless the run's own is shorter"
    )
    augmentation_entries: Literal["all", "below_mean", "below_half_mean"] = Field(
        "all", description="which may be set to zero: those below (half) the mean of their gene only, or any"
    )
    augment_adjacency_epochs: bool = Field(False, description="augment also in epochs that train only the adjacency")
    augmentation_rescale: bool = Field(
        False, description="divide the surviving values by 1 - augmentation, as the released code of January 2023 does"
    )
    prior: Literal["standard", "networks"] = Field(
        "standard", description="of z: N(0, I), or a mean and variance per gene that networks give (DeepSEM)"
    )
    kl: Literal["closed", "one_sample"] = Field(
        "closed", description="the divergence from the prior, or its estimate from the z that was drawn (DeepSEM)"
    )
    beta: float = Field(1.0, ge=0, description="weight of the KL divergence, a mean over entries")
    alpha: float = Field(100.0, ge=0, description="weight of the sparse loss, sum |A| / genes^2")
    sparse_delay: int = Field(30, ge=0, description="epochs before the sparse loss is added")
    classifier_weight: float = Field(0.0, ge=0, description="chi, of DAZZLE's classifier of augmented zeros; 0: none")
    adjacency_noise: Literal["uniform", "normal"] = Field(
        "uniform", description="start at 1/(G-1) + U[0, 2e-4], or + 1e-4 + N(0, 1e-8) as grnvae of February 2023"
    )

    @field_validator("augmentation", mode="before")
    @classmethod
    def _is_a_share_or_auto(cls, given: object) -> object:
        is_share = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < 1
        if given != "auto" and not is_share:
            raise ValueError("a share of the entries was expected, from 0 to below 1, or auto; 0.1 is the default")
        return given

    @model_validator(mode="after")
    def _classifier_has_zeros(self) -> "GRNVAEConfig":
        if self.classifier_weight > 0 and self.augmentation == 0:
            raise ValueError(
                f"classifier_weight={self.classifier_weight:g} needs augmentation > 0, without which there are none "
                "to classify; set model.classifier_weight=0, or another augmentation"
            )
        return self

    @property
    def rate(self) -> float:
        """The augmentation as a number.

        Raises:
            ValueError: it is still to be chosen.
        """
        if self.augmentation == "auto":
            raise ValueError('augmentation is "auto": a model needs a number, which a run chooses before it makes one')
        return self.augmentation

    def with_rate(self, rate: float) -> "GRNVAEConfig":
        """The settings with this augmentation; without any there is nothing to classify."""
        return self.model_copy(update={"augmentation": rate} | ({"classifier_weight": 0.0} if rate == 0 else {}))

    @property
    def without_controls(self) -> str:
        """Empty: the model does not look at perturbations."""
        return ""
