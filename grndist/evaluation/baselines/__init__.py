"""What networks are compared with: methods that train no model of ours, each with the same edge list as a result.

`baseline_edges` is all of them; the others are the scores that they are made of.
"""

from grndist.evaluation.baselines.edges import METHODS, SEEDED, SIGNED, baseline_edges, parts_of, refuse_unknown
from grndist.evaluation.baselines.evidence import BaselineError
from grndist.evaluation.baselines.screen import (
    SCREEN_BASELINES,
    Screen,
    Strata,
    blend_odds,
    mean_difference_log,
    mean_difference_odds,
    mean_difference_z,
    partial_correlation_size,
    strata_scores,
)
from grndist.evaluation.baselines.simple import absolute_correlation, correlation, random_scores
from grndist.evaluation.baselines.tasks import RunTasks, processes

__all__ = [
    "METHODS",
    "SCREEN_BASELINES",
    "SEEDED",
    "SIGNED",
    "BaselineError",
    "RunTasks",
    "Screen",
    "Strata",
    "absolute_correlation",
    "baseline_edges",
    "blend_odds",
    "correlation",
    "mean_difference_log",
    "mean_difference_odds",
    "mean_difference_z",
    "partial_correlation_size",
    "parts_of",
    "processes",
    "random_scores",
    "refuse_unknown",
    "strata_scores",
]
