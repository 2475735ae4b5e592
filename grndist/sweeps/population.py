"""Population based training (Jaderberg et al. 2017): the worst of a population go on from the best, settings changed.

All members are trained and looked at in turn, those that lag behind first. A member whose last look is among the worst
quarter of those that have come as far takes the weights and settings of one of the best quarter, and changes the
settings that may change in mid-training. Chance is a function of the sweep's seed, the member and the look.

Ray Tune's own PBT needs Tune's checkpoints, and cannot go on after its process was killed; this needs the ledger alone.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from grndist.seeds import stream
from grndist.sweeps.config import Sweep
from grndist.sweeps.ledger import Look, Trial
from grndist.sweeps.space import Parameter, Value, drawn

QUANTILE = 0.25
RESAMPLED = 0.25  # so often a setting is drawn anew instead of moved
FACTORS = (0.8, 1.2)


def behind(trials: Sequence[Trial], busy: set[int]) -> Trial | None:
    """The member that is to be trained next: of those that wait, the one that lags behind most."""
    waiting = [trial for trial in trials if not trial.is_over and trial.number not in busy]
    return min(waiting, key=lambda trial: (len(trial.looks), trial.number), default=None)


def moved_on(sweep: Sweep, trial: Trial, trials: Sequence[Trial]) -> Trial:
    """`trial`, or, if it is among the worst, with a donor and that one's settings, changed."""
    look = len(trial.looks)
    if look == 0 or trial.donor is not None:  # one that was interrupted has decided already
        return trial
    rivals = {other.number: _worth(sweep, other.looks[look - 1]) for other in trials if len(other.looks) >= look}
    order = sorted(rivals, key=lambda number: (-rivals[number], number))  # best first
    n = math.floor(QUANTILE * len(order))
    if n == 0 or trial.number not in order[-n:]:
        return trial
    rng = stream(sweep.config.seed, "population", trial.number, look)
    chosen = order[int(rng.integers(n))]
    donor = next(other for other in trials if other.number == chosen)
    if donor.status == "failed":
        return trial
    settings = dict(donor.settings)
    for key in sweep.config.scheduler.mutate:
        if key in settings:
            parameter = sweep.config.space[key]
            quantile, step = float(rng.random()), FACTORS[int(rng.integers(len(FACTORS)))]
            is_new = rng.random() < RESAMPLED
            settings[key] = drawn(parameter, quantile) if is_new else _stepped(parameter, settings[key], step)
    return replace(trial, settings=settings, donor=donor.number)


def _worth(sweep: Sweep, look: Look) -> float:
    """More is better; NaN is worst."""
    values = look.values[sweep.config.goal.name]
    mean = sum(values) / len(values)
    sign = 1.0 if sweep.config.goal.direction == "max" else -1.0
    return sign * mean if math.isfinite(mean) else -math.inf


def _stepped(parameter: Parameter, value: Value, factor: float) -> Value:
    """A little more or less of a number, the next or the last of a list."""
    values = parameter.values
    if values is not None:
        place = values.index(value) + (1 if factor > 1 else -1)
        return values[min(max(place, 0), len(values) - 1)]
    assert parameter.bounds is not None
    assert isinstance(value, int | float)
    low, high = parameter.bounds
    moved = min(max(value * factor, low), high)
    return round(moved) if parameter.is_whole else moved
