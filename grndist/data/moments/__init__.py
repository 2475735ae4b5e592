"""Sums over all cells in one pass, and what follows from them: moments of inputs and targets, effects, strengths."""

from grndist.data.moments.assemble import Standardised, bytes_needed, standardised
from grndist.data.moments.groups import Effects, effects, observed_strength
from grndist.data.moments.passing import InOrder, MomentsError, check, part, shift_of, sums
from grndist.data.moments.sums import Sums

__all__ = [
    "Effects",
    "InOrder",
    "MomentsError",
    "Standardised",
    "Sums",
    "bytes_needed",
    "check",
    "effects",
    "observed_strength",
    "part",
    "shift_of",
    "standardised",
    "sums",
]
