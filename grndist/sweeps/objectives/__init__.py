"""What the trials of a sweep are judged by: against a reference, on held-out interventions, or without any label."""

from grndist.sweeps.objectives.baselines import baseline
from grndist.sweeps.objectives.config import (
    ObjectiveConfig,
    RankSumConfig,
    ReconstructionConfig,
    ReferenceConfig,
    StabilityConfig,
    WassersteinConfig,
)
from grndist.sweeps.objectives.held_out import ObjectiveError
from grndist.sweeps.objectives.measure import measured
from grndist.sweeps.objectives.refusals import refuse_unfit

__all__ = [
    "ObjectiveConfig",
    "ObjectiveError",
    "RankSumConfig",
    "ReconstructionConfig",
    "ReferenceConfig",
    "StabilityConfig",
    "WassersteinConfig",
    "baseline",
    "measured",
    "refuse_unfit",
]
