"""The training loop of several models at once, whose parameters are stacked. Each has cells and a state of its own.

The losses, parameters and checkpoints of each are those of a training by itself, to rounding.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from grndist import models
from grndist.data.stream.batch import Batch
from grndist.data.stream.batches import Batches
from grndist.models import StackedModels
from grndist.optim.stacked import Stacked
from grndist.training.loop import State, TrainingError, not_finite


@dataclass(frozen=True)
class Member:
    """One of several trainings that go together."""

    state: State
    batch_at: Callable[[int], Batch]
    on_step: Callable[[State, Batch, dict[str, float]], bool | None]  # as `loop.train` has it
    on_failure: Callable[
        [TrainingError], None
    ]  # told when the loss is not finite; the state is that of the step before


def train_together(members: Sequence[Member], steps: int) -> None:
    """Take all states, which stand at the same step, up to step `steps`, as `loop.train` would one by one.

    A member whose `on_step` says True, or whose loss is not finite, stops there, and the others go on.
    """
    going = list(members)
    for member in going:
        member.state.model.train()
    while going and going[0].state.step < steps:
        going = _until_fewer(going, steps)


def _until_fewer(members: list[Member], steps: int) -> list[Member]:
    """Train until some stop, or to the end; those that go on."""
    states = [member.state for member in members]
    stacked = Stacked([state.model for state in states], [state.optimizers for state in states])
    together = models.stacked([state.model for state in states], stacked.parameters)
    while states[0].step < steps:
        batches = Batches([member.batch_at(state.step) for member, state in zip(members, states, strict=True)])
        found = _step(states, batches, stacked, together)
        going = [
            member
            for member, batch, losses in zip(members, batches.each, found, strict=True)
            if not _stops(member, batch, losses)
        ]
        if len(going) < len(members):
            return going
    return []


def _stops(member: Member, batch: Batch, losses: dict[str, float]) -> bool:
    if not math.isfinite(losses["loss"]):
        member.on_failure(not_finite(member.state.step, losses))
        return True
    return bool(member.on_step(member.state, batch, losses))


def _step(
    states: Sequence[State], batches: Batches, stacked: Stacked, together: StackedModels
) -> list[dict[str, float]]:
    """Take one step, but for those whose losses are not finite, and return the losses of all."""
    stacked.prepare(batches.epoch, states[0].step)
    terms = together.losses(batches)
    shares = torch.stack(list(terms.values()))  # [terms, models]
    if shares.requires_grad:
        shares.sum().backward()
    values = shares.detach()
    totals = values.sum(0).tolist()
    stacked.step(batches.epoch, [at for at, total in enumerate(totals) if math.isfinite(total)])
    for state, total in zip(states, totals, strict=True):
        state.step += math.isfinite(total)
    return [
        dict(zip(terms, own, strict=True)) | {"loss": total}
        for own, total in zip(values.T.tolist(), totals, strict=True)
    ]
