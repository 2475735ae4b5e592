"""What a run learns from: mini-batches of cells, or the second moments of all of them. Decided and built here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from grndist import models
from grndist.data.facts import Facts
from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import BalancedPlan, ShuffledPlan, cells_per_window, gene_subset
from grndist.data.view import View
from grndist.optim import Optimizers
from grndist.runs.config import RunConfig
from grndist.runs.workplace import RunError
from grndist.training.loop import State

GIB = 2**30
GENES_OF_LARGE_PANELS = 2000  # of a step, where moments do not fit and nothing is said


@dataclass(frozen=True)
class Learning:
    """A run before its first step."""

    state: State
    batch_at: Callable[[int], Batch | MomentsBatch]
    steps: int
    line: str  # what it does, in words
    unmeasured: tuple[str, ...]  # regulators that are not in the panel


def resolved(config: RunConfig, n_genes: int) -> RunConfig:
    """The settings with "auto" decided; a function of the settings and the panel alone, so a resumed run agrees.

    Raises:
        RunError: moments are asked for, or needed, and cannot be had.
    """
    training, model = config.training, config.model
    can, needed = models.can_use_moments(model), models.bytes_of_moments(model, n_genes) / GIB
    fit = needed <= training.moments_memory
    if training.source == "auto" and not can:
        return config
    source = (
        ("moments" if fit and training.epochs is None else "cells") if training.source == "auto" else training.source
    )
    _refuse(config, source, needed)
    update: dict[str, Any] = {"source": source}
    if models.is_solved(model):
        update |= {"steps": 1}
    elif training.source == "auto" and not fit and training.genes_per_step is None and training.steps is not None:
        genes = min(GENES_OF_LARGE_PANELS, n_genes)
        update |= {"genes_per_step": genes, "steps": training.steps * -(-n_genes // genes)}  # as often for every gene
    return config.model_copy(update={"training": training.model_copy(update=update)})


def _refuse(config: RunConfig, source: str, needed: float) -> None:
    training, model = config.training, config.model
    if models.is_solved(model) and source == "cells":
        raise RunError(
            f"model.form=full is solved from moments, which take {needed:.1f} GiB here (training.moments_memory is "
            f"{training.moments_memory:g}, training.source={training.source}, training.epochs={training.epochs}); "
            "raise the memory, leave out epochs and source, or set model.form=bilinear"
        )
    if source == "cells":
        return
    if not models.can_use_moments(model):
        raise RunError(
            f"training.source=moments: model.kind={model.kind} with these settings learns from cells; set it to auto"
        )
    if needed > training.moments_memory:
        raise RunError(
            f"training.source=moments: the moments of this panel take {needed:.1f} GiB and training.moments_memory is "
            f"{training.moments_memory:g}; raise it, set training.source=cells, or keep fewer genes"
        )
    if training.epochs is not None:
        raise RunError(
            "training.source=moments has no epochs, since every step sees all cells; set training.epochs=null and "
            "training.steps, or training.source=cells"
        )


def learning(config: RunConfig, view: View) -> Learning:
    """The model and its data; `config` is `resolved`."""
    training = config.training
    facts = Facts(view, config.expression, products=training.source == "moments")
    built = models.build(config.model, facts, training.seed)
    device = torch.device(training.device)
    built.model.to(device)
    if built.moments is not None:
        batch_at, steps, line = _from_moments(config, view, built.moments.to(device))
    else:
        batch_at, steps, line = _from_cells(config, view, device)
    state = State(built.model, Optimizers(training, built.model.parameter_groups(), steps))
    return Learning(state, batch_at, steps, line, built.unmeasured)


def _from_cells(
    config: RunConfig, view: View, device: torch.device
) -> tuple[Callable[[int], Batch | MomentsBatch], int, str]:
    training = config.training
    plan = _plan(config, view)
    loader = Loader(view, plan, config.expression, device=device)
    steps = training.steps or (training.epochs or 0) * plan.steps_per_epoch
    length = f"{training.epochs} epochs of {plan.steps_per_epoch} steps" if training.epochs else f"{steps:,} steps"
    return loader.batch_at, steps, f"{length}, mini-batches of {training.cells_per_step:,} cells"


def _plan(config: RunConfig, view: View) -> BalancedPlan | ShuffledPlan:
    training = config.training
    genes = training.genes_per_step or view.n_genes
    window = cells_per_window(training.streams, view.store.bytes_per_cell)
    if training.sampling == "per_perturbation":
        return BalancedPlan(
            view.perturbed, view.n_genes, training.cells_per_step, genes, training.seed, training.streams,
            training.cells_per_perturbation, training.cells_per_epoch or view.n_cells, training.control_share, window,
        )  # fmt: skip
    return ShuffledPlan(
        view.n_cells, view.n_genes, training.cells_per_step, genes, training.seed, training.streams,
        cells_per_window=window,
    )  # fmt: skip


def _from_moments(
    config: RunConfig, view: View, whole: MomentsBatch
) -> tuple[Callable[[int], Batch | MomentsBatch], int, str]:
    training = config.training
    genes = training.genes_per_step or view.n_genes
    steps = training.steps or 1

    def batch_at(step: int) -> MomentsBatch:
        if genes >= view.n_genes:
            return replace(whole, step=step)
        chosen = torch.from_numpy(gene_subset(training.seed, 0, step, view.n_genes, genes))
        return replace(whole.subset(chosen.to(whole.genes.device)), step=step)

    how = "solved" if models.is_solved(config.model) else f"{steps:,} steps"
    return batch_at, steps, f"from the second moments of {view.n_cells:,} cells (one pass over them), {how}"
