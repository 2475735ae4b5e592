"""What can be simulated, and what the words of the settings mean in numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from grndist.config import Config, ConfigError

CELLS_PER_PERTURBATION = 5  # fewer would say nothing about a perturbed gene


@dataclass(frozen=True)
class Conditions:
    """What a difficulty means."""

    strength: float  # median |weight|: change of log production from regulator absent to saturating
    molecules: float  # effective system size; intrinsic noise has a squared CV of about 1 / molecules
    state_factors: int  # hidden cell states that move many genes at once
    state_loading: float  # sd over genes of a state's effect on log production
    counts_per_gene: float  # mean UMI count per gene and cell at basal level
    dispersion: float  # theta of the negative binomial: variance = mean + mean^2 / theta
    dropout: float  # probability that a count is lost as its mean goes to zero
    residual: float  # median share of production that CRISPRi leaves


CONDITIONS = {
    "easy": Conditions(1.75, 3.0, 1, 0.1, 1.0, 10.0, 0.1, 0.1),
    "realistic": Conditions(1.75, 3.0, 3, 0.25, 0.5, 4.0, 0.3, 0.15),
    "hard": Conditions(1.25, 4.0, 4, 0.35, 0.25, 2.0, 0.5, 0.25),
}


class SimulationConfig(Config):
    """What to simulate."""

    cells: int = Field(3000, ge=10, le=10_000_000, description="cells, perturbed and control together")
    genes: int = Field(200, ge=5, le=100_000, description="genes of the panel")
    regulators: int = Field(40, ge=1, description="genes that regulate others, at most all of them")
    perturbed_share: float = Field(0.5, ge=0, le=1, description="share of the regulators that are knocked down")
    decoy_share: float = Field(
        0.5, ge=0, le=10, description="knocked-down genes that regulate nothing, per knocked-down regulator"
    )
    control_share: float = Field(
        0.3, ge=0, le=1, description="share of control cells; without knocked-down genes every cell is a control"
    )
    difficulty: Literal["easy", "realistic", "hard"] = Field(
        "realistic", description="strength of regulation, noise, hidden cell states, depth and dropout"
    )
    indirect_effects: Literal["weak", "strong"] = Field(
        "weak", description="strong: regulators form a cascade and regulate each other twice as strongly as other genes"
    )
    library_effects: float = Field(
        0.0, ge=0, le=3, description="sd over perturbed genes of the log change of library size in their cells"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed and settings give the same data")

    @property
    def n_perturbed(self) -> tuple[int, int]:
        """How many regulators, and how many genes that regulate nothing, are knocked down."""
        perturbed = round(self.perturbed_share * self.regulators)
        return perturbed, round(self.decoy_share * perturbed)

    @property
    def n_controls(self) -> int:
        """How many cells are controls."""
        return round(self.control_share * self.cells) if sum(self.n_perturbed) else self.cells

    @model_validator(mode="after")
    def _fits_together(self) -> "SimulationConfig":
        problem = next(_misfits(self), None)
        if problem is not None:
            raise ConfigError(f"simulation: {problem}")  # no ValueError: pydantic would wrap the message
        return self


def _misfits(config: SimulationConfig) -> Iterator[str]:
    """What is wrong between settings that are each within their bounds."""
    perturbed, decoys = config.n_perturbed
    if config.regulators > config.genes:
        yield f"regulators={config.regulators} exceeds genes={config.genes}; lower regulators or raise genes"
    if decoys > config.genes - config.regulators:
        yield (
            f"decoy_share={config.decoy_share:g} asks for {decoys} perturbed genes that regulate nothing, but only "
            f"{config.genes - config.regulators} of the {config.genes} genes are not regulators; lower decoy_share "
            "or regulators, or raise genes"
        )
    if config.indirect_effects == "strong" and config.regulators == config.genes:
        yield (
            f"indirect_effects=strong with regulators={config.regulators} of {config.genes} genes leaves the last "
            "regulator of the cascade nothing to regulate; lower regulators or raise genes"
        )
    needed, left = CELLS_PER_PERTURBATION * (perturbed + decoys), config.cells - config.n_controls
    if left < needed:
        yield (
            f"cells={config.cells} with control_share={config.control_share:g} leaves {left} cells for "
            f"{perturbed + decoys} perturbed genes, but at least {needed} are needed ({CELLS_PER_PERTURBATION} each); "
            "raise cells, or lower control_share or perturbed_share (0 simulates control cells only)"
        )
