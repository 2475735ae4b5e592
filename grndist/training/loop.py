"""The training loop. It knows nothing of Ray, MLflow or Zarr.

`batch_at` brings data, `on_step` takes news away, and the caller decides where both of them go.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.errors import UserError
from grndist.optim import Optimizers


class TrainingError(UserError):
    """Training cannot go on with these settings."""


@dataclass
class State:
    """Everything that must survive an interruption, and nothing else: randomness is a function of the step."""

    model: nn.Module
    optimizers: Optimizers
    step: int = 0  # number of steps already taken, over all epochs


def train(
    state: State,
    batch_at: Callable[[int], Batch | MomentsBatch],
    steps: int,
    on_step: Callable[[State, Batch | MomentsBatch, dict[str, float]], None],
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Take `state` from where it stands up to step `steps`, telling `on_step` of every one.

    The forward pass runs inside `precision()`. A model without trainable parameters (one that was solved) is only
    evaluated.

    Raises:
        TrainingError: the loss is not finite; the state is that of the step before.
    """
    state.model.train()
    while state.step < steps:
        batch = batch_at(state.step)
        state.optimizers.prepare(batch.epoch, state.step)
        with precision():
            terms: dict[str, Tensor] = state.model(batch)
        total = torch.stack(list(terms.values())).sum()
        losses = {name: value.item() for name, value in terms.items()} | {"loss": total.item()}
        if not math.isfinite(losses["loss"]):
            raise TrainingError(
                f"the loss is {losses['loss']} at step {state.step} ({losses}); "
                "lower training.learning_rate, or check the data for extreme values"
            )
        if total.requires_grad:
            total.backward()
        state.optimizers.step(batch.epoch)
        state.step += 1
        on_step(state, batch, losses)
