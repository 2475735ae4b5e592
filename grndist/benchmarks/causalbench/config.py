"""What is compared, on which cells and at how many edges."""

from pydantic import Field, field_validator, model_validator

from grndist.config import Config
from grndist.data.selection import SelectionConfig
from grndist.data.selection.causalbench import CausalBenchConfig
from grndist.errors import UserError
from grndist.evaluation.interventional import OmissionConfig
from grndist.evaluation.interventional.curves import K
from grndist.tracking import TrackingConfig

MODELS = ("paper", "catran_d", "mean_difference_log", "random")
FRACTIONS = (0.25, 0.5, 0.75, 1.0)  # of the CausalBench challenge
SEEDS = (0, 1, 2)
PARTS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # of `k`: where curves are measured
ITS_OWN = ("split", "regime", "fraction", "seed")  # settings that each training has from its case


class CasesError(UserError):
    """The regimes cannot be run as asked."""


class RegimesConfig(Config):
    """One comparison, but for the models' own settings."""

    store: str = Field(description="a path or URL")
    models: tuple[str, ...] = Field(MODELS, min_length=1, description="presets, run files and baselines")
    fractions: tuple[float, ...] = Field(
        FRACTIONS, min_length=1, description="shares of the labels that are trained on; 0: control cells alone"
    )
    seeds: tuple[int, ...] = Field(SEEDS, min_length=1, description="of the choice of labels and of the training")
    k: int = Field(K, gt=0, description="edges at which models are compared by one number")
    causalbench: CausalBenchConfig = Field(CausalBenchConfig(), description="filter and names; the rest is the cases'")
    omission: OmissionConfig = OmissionConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= fraction <= 1 for fraction in fractions):
            raise ValueError("shares from 0 to 1 were expected, e.g. 0.25,0.5,0.75,1.0")
        return tuple(sorted(set(fractions)))

    @field_validator("seeds")
    @classmethod
    def _are_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not all(seed >= 0 for seed in seeds):
            raise ValueError("whole numbers from 0 on were expected, e.g. 0,1,2")
        return tuple(sorted(set(seeds)))

    @model_validator(mode="after")
    def _leaves_the_cases_own(self) -> "RegimesConfig":
        given = self.causalbench.model_dump(exclude_defaults=True)
        if twice := [f"causalbench.{name}" for name in ITS_OWN if name in given]:
            raise ValueError(f"{', '.join(twice)}: every training has its own; give --fractions and --seeds instead")
        return self

    def regime(self, fraction: float, seed: int) -> CausalBenchConfig:
        """The training cells of a fraction: controls alone at 0, all at 1."""
        kind = "observational" if fraction == 0 else "full" if fraction == 1 else "partial"
        update = {"split": "train", "regime": kind, "fraction": fraction, "seed": seed}
        return self.causalbench.model_copy(update=update)

    def training_cells(self, fraction: float, seed: int) -> SelectionConfig:
        """The same as a selection."""
        return SelectionConfig(causalbench=self.regime(fraction, seed))

    @property
    def test_cells(self) -> SelectionConfig:
        """The cells that edges are tested on, of all labels."""
        return SelectionConfig(causalbench=self.causalbench.model_copy(update={"split": "test"}))

    def ks(self, possible: int) -> list[int]:
        """Numbers of edges of the curves: from a tenth of `k` to ten times as many, up to what any network can have."""
        return [k for k in sorted({max(round(self.k * part), 1) for part in PARTS}) if k <= possible]
