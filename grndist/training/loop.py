"""The training loop. It knows nothing of Ray, MLflow or Zarr.

`batch_at` brings data, `on_step` takes news away, and the caller decides where both of them go.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.errors import UserError
from grndist.optim import Optimizers
from grndist.training.distributed import added_up
from grndist.workers import ALONE, Workers


class TrainingError(UserError):
    """Training cannot go on with these settings."""


class Look(NamedTuple):
    """One validation."""

    step: int  # of training, taken by then
    loss: float  # on held-out cells


@dataclass
class State:
    """Everything that must survive an interruption, and nothing else: randomness is a function of the step."""

    model: nn.Module
    optimizers: Optimizers
    step: int = 0  # number of steps already taken, over all epochs
    looks: list[Look] = field(default_factory=list)  # every validation so far


def train(
    state: State,
    batch_at: Callable[[int], Batch | MomentsBatch],
    steps: int,
    on_step: Callable[[State, Batch | MomentsBatch, dict[str, float]], bool | None],
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    workers: Workers = ALONE,
) -> None:
    """Take `state` from where it stands up to step `steps`, telling `on_step` of every one; where it says True, stop.

    The forward pass runs inside `precision()`. A model without trainable parameters (one that was solved) is only
    evaluated. Several workers each bring their own cells of every step, are told the same losses, and must stop after
    the same step; their models start alike and stay so, bit for bit.

    Raises:
        TrainingError: the loss is not finite, for all workers alike; the state is that of the step before.
    """
    state.model.train()
    while state.step < steps:
        batch = batch_at(state.step)
        state.optimizers.prepare(batch.epoch, state.step)
        losses = _step(state, batch, precision, workers)
        if on_step(state, batch, losses):
            return


def _step(
    state: State,
    batch: Batch | MomentsBatch,
    precision: Callable[[], AbstractContextManager[Any]],
    workers: Workers,
) -> dict[str, float]:
    """Take one step and return its losses; a function, so that nothing of it is alive in the next one."""
    with precision():
        terms: dict[str, Tensor] = state.model(batch, workers)
    shares = torch.stack(list(terms.values()))
    if shares.requires_grad:
        shares.sum().backward()
    values = added_up(shares.detach(), state.model, batch.genes, workers)
    losses = dict(zip(terms, values.tolist(), strict=True)) | {"loss": values.sum().item()}
    if not math.isfinite(losses["loss"]):
        raise not_finite(state.step, losses)
    state.optimizers.step(batch.epoch)
    state.step += 1
    return losses


def not_finite(step: int, losses: dict[str, float]) -> TrainingError:
    """What ends a training whose loss is not a number, or infinite."""
    return TrainingError(
        f"the loss is {losses['loss']} at step {step} ({losses}); "
        "lower training.learning_rate, or check the data for extreme values"
    )


def held_out_loss(
    model: nn.Module,
    batches: Iterable[Batch],
    terms: Sequence[str],
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    workers: Workers = ALONE,
) -> float:
    """The sum of some loss terms, mean over the cells of all batches; the model is left as it was.

    Several workers each bring batches of their own, any number of them, and are told the same loss.
    """
    total, n_cells, was_training = 0.0, 0, model.training
    model.eval()
    for batch in batches:
        with torch.no_grad(), precision():
            found: dict[str, Tensor] = model(batch)
        total += batch.n_cells * sum(found[name].item() for name in terms)
        n_cells += batch.n_cells
    model.train(was_training)
    total, n_cells = workers.total(torch.tensor([total, n_cells], dtype=torch.float64))[0].tolist()
    return total / n_cells
