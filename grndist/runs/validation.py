"""Held-out cells: which they are, how well the model predicts them, and when training stops because of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from grndist.data.selection.split import parted
from grndist.data.stream.batch import Batch
from grndist.data.view import View
from grndist.runs.workplace import RunError
from grndist.training.loop import Look, State, held_out_loss
from grndist.workers import ALONE, Workers


@dataclass(frozen=True)
class Schedule:
    """When to look at the held-out cells, and when that ends the training; in steps."""

    steps: int  # of the whole training
    every: int
    first: int  # looks up to this step count for nothing
    patience: int | None  # looks in a row without a better loss; None: never stop
    per_epoch: int | None  # steps of an epoch, where the run is counted in those

    def is_due(self, step: int) -> bool:
        """Whether to look after this many steps; the last one always is."""
        return step % self.every == 0 or step == self.steps

    def is_over(self, looks: Sequence[Look]) -> bool:
        """Whether these looks, all there have been, end the training."""
        losses = [look.loss for look in self._counted(looks)]
        return self.patience is not None and bool(losses) and len(losses) - 1 - best_of(losses) >= self.patience

    def verdict(self, looks: Sequence[Look]) -> str:
        """Why training is over before its last step, in words; empty where it is not."""
        if not self.is_over(looks) or looks[-1].step == self.steps:
            return ""
        counted = self._counted(looks)
        best = counted[best_of([look.loss for look in counted])]
        return (
            f"stopped early at {self._at(looks[-1].step)} of {self.steps // (self.per_epoch or 1):,}: held-out loss "
            f"has not improved for {self.patience} validations (best {best.loss:.4g} at {self._at(best.step)})"
        )

    def _counted(self, looks: Sequence[Look]) -> list[Look]:
        return [look for look in looks if look.step > self.first]

    def _at(self, step: int) -> str:
        return f"epoch {step // self.per_epoch:,}" if self.per_epoch else f"step {step:,}"


@dataclass(frozen=True)
class Validation:
    """What a run is validated with: the same batches and random numbers every time."""

    schedule: Schedule
    terms: tuple[str, ...]  # of the loss
    batch_at: Callable[[int], Batch]
    numbers: range  # of this worker's batches

    def batches(self) -> Iterator[Batch]:
        """All held-out cells; of several workers, those of this one."""
        return map(self.batch_at, self.numbers)

    def look(
        self, state: State, precision: Callable[[], AbstractContextManager[Any]], workers: Workers = ALONE
    ) -> dict[str, float]:
        """The loss on held-out cells, which the state remembers, by its name; empty where none is due."""
        if not self.schedule.is_due(state.step):
            return {}
        loss = held_out_loss(state.model, self.batches(), self.terms, precision, workers)
        state.looks.append(Look(state.step, loss))
        return {"validation_loss": loss}


def divided(view: View, share: float | None, seed: int) -> tuple[View, View | None]:
    """The cells to train on, and those held out: the same share of every label, drawn by the seed.

    A label with one cell is trained on. The median total stays that of all cells, as with `cells.split`.

    Raises:
        RunError: one of the two would have no cells.
    """
    if share is None:
        return view, None
    training, held_out = parted(view, share, seed)
    if not (training.n_cells and held_out.n_cells):
        which, remedy = ("all", "lower") if held_out.n_cells else ("none", "raise")
        raise RunError(
            f"training.validation={share:g} holds out {which} of the {view.n_cells:,} cells; {remedy} it, or set it to "
            "null"
        )
    line = f"cells: {held_out.n_cells:,} of {view.n_cells:,} held out by training.validation {share:g}"
    return replace(training, lines=(*view.lines, line)), held_out


def best_of(losses: Sequence[float]) -> int:
    """Which of some losses is the lowest, the first of equals; NaN is worse than any number."""
    return min(range(len(losses)), key=lambda at: math.inf if math.isnan(losses[at]) else losses[at])
