"""The objectives and their settings. Each has a `name`, unique by its settings, a `direction` and a `definition`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from grndist.config import Config

Direction = Literal["max", "min"]
Split = Literal["validation", "test"]

MEASURES = {"epr": "EPR", "auprc_ratio": "AUPRC ratio"}  # as `evaluation` calls them
AT_K = 1000  # CausalBench's challenge


class ReferenceConfig(Config):
    """How well the network recovers a reference network."""

    kind: Literal["reference"] = "reference"
    file: Path = Field(description="the reference network, in any format that `grndist evaluate` reads")
    measure: Literal["epr", "auprc_ratio"] = "auprc_ratio"
    lineage: Literal["dazzle", "beeline"] = Field("dazzle", description="whose definitions; they are not comparable")
    all_pairs: bool = Field(False, description="BEELINE over all pairs of the reference's genes")

    direction: ClassVar[Direction] = "max"

    @field_validator("file")
    @classmethod
    def _means_the_same_anywhere(cls, file: Path) -> Path:
        return file.absolute()

    @field_validator("all_pairs")
    @classmethod
    def _is_beelines(cls, all_pairs: bool, info: object) -> bool:
        if all_pairs and getattr(info, "data", {}).get("lineage") != "beeline":
            raise ValueError("it is BEELINE's; set lineage to beeline, or leave this out")
        return all_pairs

    @property
    def name(self) -> str:
        """For tables."""
        of = "" if self.lineage == "dazzle" else " beeline"
        return f"{self.measure}{of}{' all pairs' if self.all_pairs else ''}"

    @property
    def definition(self) -> str:
        """What is measured, in words."""
        what = "early precision" if self.measure == "epr" else "area under the precision-recall curve"
        pairs = "all ordered pairs of the reference's genes" if self.all_pairs else "its regulators x its genes"
        return (
            f"{what} of the whole ranking against {self.file.name}, divided by chance (1), as {self.lineage.upper()} "
            f"defines it, over {pairs} in the panel"
        )


class _AtK(Config):
    """What is measured on the k strongest edges."""

    k: int = Field(AT_K, gt=0, description="number of edges; networks are comparable only at one and the same")


class _HeldOut(_AtK):
    """What is measured on cells that no trial was trained on."""

    split: Split = Field(
        "validation", description="part of the store's split (of CausalBench's, with a run that has it: test)"
    )

    direction: ClassVar[Direction] = "max"

    @property
    def _where(self) -> str:
        return "" if self.split == "validation" else f" {self.split}"

    @property
    def _edges(self) -> str:
        return (
            f"the {self.k:,} strongest edges whose regulator is perturbed in cells of the {self.split} split, which "
            "are not trained on: the target in those cells against it in control cells of that split, on the log scale"
        )


class WassersteinConfig(_HeldOut):
    """How far the targets move where their regulators are perturbed: CausalBench's mean Wasserstein distance."""

    kind: Literal["wasserstein"] = "wasserstein"

    @property
    def name(self) -> str:
        """For tables."""
        return f"wasserstein@{self.k}{self._where}"

    @property
    def definition(self) -> str:
        """What is measured, in words."""
        return f"mean Wasserstein distance over {self._edges}"


class RankSumConfig(_HeldOut):
    """How many of the targets move significantly where their regulators are perturbed."""

    kind: Literal["rank_sum_precision"] = "rank_sum_precision"
    alpha: float = Field(0.05, gt=0, lt=1, description="a target differs where the rank-sum test's p is below this")

    @property
    def name(self) -> str:
        """For tables."""
        level = "" if self.alpha == 0.05 else f" p<{self.alpha:g}"
        return f"rank_sum_precision@{self.k}{level}{self._where}"

    @property
    def definition(self) -> str:
        """What is measured, in words."""
        return f"share with p < {self.alpha:g} (two-sided rank-sum test, no correction) of {self._edges}"


class StabilityConfig(_AtK):
    """How far replicates, which differ in their seed alone, agree on the strongest edges."""

    kind: Literal["stability"] = "stability"

    direction: ClassVar[Direction] = "max"

    @property
    def name(self) -> str:
        """For tables."""
        return f"stability@{self.k}"

    @property
    def definition(self) -> str:
        """What is measured, in words."""
        return (
            f"mean Jaccard index of a replicate's {self.k:,} strongest edges with those of each other replicate; it "
            "says that training ends in one place, not that this is the right one"
        )


class ReconstructionConfig(Config):
    """How well held-out cells are predicted: the loss that training itself measures on them."""

    kind: Literal["reconstruction"] = "reconstruction"

    direction: ClassVar[Direction] = "min"

    @property
    def name(self) -> str:
        """For tables."""
        return "reconstruction"

    @property
    def definition(self) -> str:
        """What is measured, in words."""
        return (
            "the last loss on the cells that training.validation holds out, the terms that say how well they are "
            "predicted; comparable only among trials whose settings do not change that loss itself (masking, weights "
            "of its terms, scaling of the expression)"
        )


HeldOutConfig = WassersteinConfig | RankSumConfig
AnyObjective = ReferenceConfig | WassersteinConfig | RankSumConfig | StabilityConfig | ReconstructionConfig
ObjectiveConfig = Annotated[AnyObjective, Field(discriminator="kind")]
