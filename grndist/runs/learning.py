"""What a run learns from: mini-batches of cells, or the second moments of all of them. Decided and built here."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from grndist import models
from grndist.data.facts import Facts, Pass, in_one_task
from grndist.data.normalise import Moments, moments
from grndist.data.selection.gene_names import read_gene_list
from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import BalancedPlan, ShuffledPlan, cells_per_window, gene_subset
from grndist.data.view import View
from grndist.genes import some
from grndist.optim import Optimizers
from grndist.runs.config import RunConfig, TrainingConfig
from grndist.runs.refusals import refuse_source, sizes_of_step
from grndist.runs.validation import Schedule, Validation
from grndist.runs.workplace import RunError
from grndist.training.loop import State

GIB = 2**30
STREAMS_OF_WORKERS = 16  # or as many as there are workers; each then serves several, of nearly equal numbers
GENES_OF_LARGE_PANELS = 2000  # of a step, where moments do not fit and nothing is said


class Rank(NamedTuple):
    """A worker's number among those who train together."""

    number: int
    world: int


ONLY = Rank(0, 1)


@dataclass(frozen=True)
class Learning:
    """A run before its first step."""

    state: State
    batch_at: Callable[[int], Batch | MomentsBatch]
    steps: int
    lines: tuple[str, ...]  # what it does, in words
    n_cells: int  # whose moments were summed before the first step; 0 where the steps see the cells
    cells_per_step: float  # of all workers, in the mean; 0 where the steps see moments
    unmeasured: tuple[str, ...]  # inputs that are not in the panel
    regulators: list[str] | None  # genes that may regulate; None: all, unmeasured ones too
    validation: Validation | None  # None: no cells are held out


def resolved(config: RunConfig, view: View) -> RunConfig:
    """The settings with "auto" decided; a function of the settings and the view alone, so a resumed run agrees.

    Raises:
        RunError: moments are asked for, or needed, and cannot be had.
    """
    training, model = config.training, config.model
    can, needed = models.can_use_moments(model), models.bytes_of_moments(model, view) / GIB
    fit = needed <= training.moments_memory
    if training.source == "auto" and not can:
        refuse_source(config, "cells", needed)
        return _with_streams(config)
    source = (
        ("moments" if fit and training.epochs is None else "cells") if training.source == "auto" else training.source
    )
    refuse_source(config, source, needed)
    if source == "moments" and training.validation is not None:
        raise RunError(
            f"training.validation={training.validation:g} holds out cells of mini-batches, and this run learns from "
            "the moments of all cells; set training.source=cells, or training.validation=null"
        )
    model = models.resolved(model, source == "moments")
    update: dict[str, Any] = {"source": source}
    if models.is_solved(model):
        update |= {"steps": 1}
    elif training.source == "auto" and not fit and training.genes_per_step is None and training.steps is not None:
        genes = min(GENES_OF_LARGE_PANELS, view.n_genes)
        often = -(-view.n_genes // genes)  # so that every gene is seen as often
        update |= {"genes_per_step": genes, "steps": training.steps * often}
    config = config.model_copy(update={"model": model, "training": training.model_copy(update=update)})
    return config if source == "moments" else _with_streams(config)


def _with_streams(config: RunConfig) -> RunConfig:
    training, workers = config.training, config.workers
    if training.streams is not None:
        return config
    streams = 1 if workers is None else min(max(STREAMS_OF_WORKERS, workers.max), training.cells_per_step)
    return config.model_copy(update={"training": training.model_copy(update={"streams": streams})})


def steps_of(config: RunConfig, view: View) -> int:
    """Length of the whole training; `config` is `resolved`."""
    return config.training.steps or (config.training.epochs or 0) * steps_per_epoch(config, view)


def steps_per_epoch(config: RunConfig, view: View) -> int:
    """Steps in which mini-batches go once over the cells."""
    return _plan(config, view).steps_per_epoch


def schedule_of(config: RunConfig, view: View) -> Schedule | None:
    """When to validate; None where no cells are held out. `config` is `resolved`."""
    training = config.training
    if training.validation is None:
        return None
    per_epoch = steps_per_epoch(config, view)
    return Schedule(
        steps_of(config, view), training.validate_every * per_epoch, models.may_stop_from(config.model) * per_epoch,
        training.patience, per_epoch if training.epochs else None,
    )  # fmt: skip


def learning(
    config: RunConfig, view: View, held_out: View | None = None, rank: Rank = ONLY, pass_over: Pass = in_one_task
) -> Learning:
    """The model and its data; `config` is `resolved`.

    Args:
        config: the run.
        view: cells to train on.
        held_out: cells to validate with.
        rank: this worker's among all.
        pass_over: how sums over all cells are made, where a model needs any.
    """
    training, begun = config.training, time.monotonic()
    facts = Facts(view, config.expression, training.source == "moments", pass_over)
    built = models.build(config.model, facts, training.seed)
    device = torch.device(training.device)
    built.model.to(device)
    steps = steps_of(config, view)
    given = moments(view, config.expression) if config.expression.zscore != "none" else None  # not of held-out cells
    batch_at: Callable[[int], Batch | MomentsBatch]
    if built.moments is not None:
        batch_at, n_cells, per_step = _from_moments(config, view, built.moments.to(device)), view.n_cells, 0.0
        line = _line_of_moments(config, view, time.monotonic() - begun)
    else:
        plan = _plan(config, view)
        loader = Loader(view, plan, config.expression, rank.number, rank.world, device, moments=given)
        batch_at, n_cells, per_step = loader.batch_at, 0, plan.cells_per_step_in_the_mean
        line = _line_of_cells(training, plan)
    state = State(built.model, Optimizers(training, built.model.parameter_groups(), steps))
    regulators = _regulators(config, view, built.unmeasured)
    name = models.described(config.model) + (f", preset {config.preset}" if config.preset else "")
    lines = (
        f"{line}; model: {name}",
        *_line_of_memory(config, view),
        *_line_of_delay(config.model, training),
        *_line_of_unmeasured(built.unmeasured, regulators),
    )
    schedule = schedule_of(config, view)
    validation = _validation(config, schedule, held_out, given, rank) if held_out and schedule else None
    return Learning(state, batch_at, steps, lines, n_cells, per_step, built.unmeasured, regulators, validation)


def _validation(config: RunConfig, schedule: Schedule, held_out: View, given: Moments | None, rank: Rank) -> Validation:
    """Always the batches of the first epoch, and so the same cells, genes and noise; dealt to workers in turn."""
    training = config.training
    plan = ShuffledPlan(
        held_out.n_cells, held_out.n_genes, training.cells_per_step, training.genes_per_step or held_out.n_genes,
        training.seed, cells_per_window=cells_per_window(1, held_out.store.bytes_per_cell),
    )  # fmt: skip
    device = torch.device(training.device)
    loader = Loader(held_out, plan, config.expression, device=device, ahead=False, moments=given)
    own = range(rank.number, plan.steps_per_epoch, rank.world)
    return Validation(schedule, models.criterion(config.model), loader.batch_at, own)


def _regulators(config: RunConfig, view: View, unmeasured: tuple[str, ...]) -> list[str] | None:
    """Names of the genes that may regulate, with the unmeasured ones of the list; None where there is no list."""
    measured = view.panel.regulators
    if measured is None or config.genes.regulators is None:
        return measured
    listed = set(read_gene_list(config.genes.regulators, "genes.regulators"))
    return measured + [gene for gene in unmeasured if gene in listed]


def _line_of_unmeasured(unmeasured: tuple[str, ...], regulators: list[str] | None) -> list[str]:
    names = [gene for gene in unmeasured if regulators is None or gene in regulators]
    return [f"{len(names):,} perturbed genes that were not measured may regulate, too: {some(names)}"] if names else []


def _plan(config: RunConfig, view: View) -> BalancedPlan | ShuffledPlan:
    training = config.training
    genes = training.genes_per_step or view.n_genes
    streams = training.streams or 1
    window = cells_per_window(streams, view.store.bytes_per_cell)
    if training.sampling == "per_perturbation":
        return BalancedPlan(
            view.perturbed, view.n_genes, training.cells_per_step, genes, training.seed, streams,
            training.cells_per_perturbation, training.cells_per_epoch or view.n_cells, training.control_share, window,
        )  # fmt: skip
    return ShuffledPlan(
        view.n_cells, view.n_genes, training.cells_per_step, genes, training.seed, streams,
        cells_per_window=window,
    )  # fmt: skip


def _line_of_memory(config: RunConfig, view: View) -> list[str]:
    needed = models.bytes_of_step(config.model, config.training, sizes_of_step(config.training, view))
    return [] if needed is None else [f"memory of a step: {needed.total / GIB:.2f} GiB"]


def _line_of_delay(model: models.ModelConfig, training: TrainingConfig) -> list[str]:
    begins = models.may_stop_from(model)
    if training.epochs is None or begins < training.epochs:
        return []
    return [f"the sparse loss begins in epoch {begins + 1}, after the last: model.sparse_delay lowers that"]


def _line_of_cells(training: TrainingConfig, plan: BalancedPlan | ShuffledPlan) -> str:
    length = f"{training.epochs} epochs of {plan.steps_per_epoch}" if training.epochs else f"{training.steps:,}"
    return f"{length} steps, mini-batches of {training.cells_per_step:,} cells"


def _from_moments(config: RunConfig, view: View, whole: MomentsBatch) -> Callable[[int], MomentsBatch]:
    seed, genes = config.training.seed, config.training.genes_per_step or view.n_genes

    def batch_at(step: int) -> MomentsBatch:
        if genes >= view.n_genes:
            return replace(whole, step=step)
        chosen = torch.from_numpy(gene_subset(seed, 0, step, view.n_genes, genes))
        return replace(whole.subset(chosen.to(whole.genes.device)), step=step)

    return batch_at


def _line_of_moments(config: RunConfig, view: View, seconds: float) -> str:
    how = "solved" if models.is_solved(config.model) else f"{config.training.steps:,} steps"
    return f"from the second moments of {view.n_cells:,} cells (one pass over them; ready in {seconds:.1f} s), {how}"
