"""What a run cannot have, said before it starts."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from grndist import models
from grndist.data.view import View
from grndist.genes import CONTROL
from grndist.machine import available_memory
from grndist.models import StepSizes
from grndist.optim import OptimizerConfig
from grndist.runs.config import RunConfig, TrainingConfig
from grndist.runs.workplace import RunError

GIB = 2**30
STILL_TO_COME = 350 * 2**20  # that a process of a run takes after the check, whatever the model: libraries, the loader
ROOM = 0.9  # of the free memory, of which there may be less a moment later, is what a proposal may take
OF_CELLS = ("sampling", "cells_per_perturbation", "cells_per_epoch", "control_share", "streams")  # nothing to moments


def refuse_unfit(config: RunConfig, view: View, is_here: bool = True) -> None:
    """Raise unless the cells of the view, and this machine if the training `is_here`, are such as the settings need.

    Raises:
        RunError: no such device, no counts, or no perturbed or control cells.
    """
    if is_here and config.training.device == "cuda" and not torch.cuda.is_available():
        raise RunError("training.device=cuda: PyTorch finds no CUDA device here; set training.device=cpu")
    if config.expression.transform == "clr" and view.state != "counts":
        raise RunError(
            f"{config.store}: its values are {view.state}, and expression.transform=clr is for counts; ingest the "
            "counts (--layer or --raw may hold them), or set another transform"
        )
    if view.n_genes < 2:
        raise RunError(
            f"{config.store}: one gene is left, and a network needs two; choose more (genes in the run file)"
        )
    if is_here:
        refuse_memory(config, sizes_of_step(config.training, view), _free_memory(config.training.device))
    _refuse_control_share(config, view)
    instead = config.model.without_controls
    if instead and (view.perturbed != CONTROL).any() and not (view.perturbed == CONTROL).any():
        raise RunError(
            f"{config.store}: no control cells, and model.kind={config.model.kind} compares perturbed cells with them; "
            f"ingest again with --control LABEL, or set {instead}"
        )


def sizes_of_step(training: TrainingConfig, view: View) -> StepSizes:
    """What a step of a run that sees these cells is over."""
    regulators = view.n_genes if view.is_regulator is None else int(view.is_regulator.sum())
    subset = min(training.genes_per_step or view.n_genes, view.n_genes)
    return StepSizes(view.n_genes, regulators, subset, training.cells_per_step)


def refuse_memory(config: RunConfig, sizes: StepSizes, free: int) -> None:
    """Raise unless a step of training fits into `free` bytes.

    Raises:
        RunError: it does not; the message has the settings, one change each, that would.
    """
    needed = models.bytes_of_step(config.model, config.training, sizes)
    if needed is None or needed.total <= free:
        return
    fitting = _that_fit(config, sizes, int(ROOM * free))
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in asdict(needed).items())
    raise RunError(
        f"a step of model.kind={config.model.kind} with {sizes.genes:,} genes, {sizes.genes_per_step:,} at once, needs "
        f"{needed.total / GIB:.1f} GiB ({parts}), and {free / GIB:.1f} GiB are free on training.device="
        f"{config.training.device}; what would fit: {', or '.join(fitting) or 'fewer genes and cells'}"
    )


def _that_fit(config: RunConfig, sizes: StepSizes, free: int) -> list[str]:
    """Settings with which a step takes at most `free` bytes, and what it then takes."""

    def total(changed: StepSizes, optimizer: OptimizerConfig = config.training) -> int:
        needed = models.bytes_of_step(config.model, optimizer, changed)
        return needed.total if needed else 0

    def largest(below: int, to: Callable[[int], StepSizes]) -> int:
        return _largest(lambda n: total(to(n)), below, free)

    changes: dict[str, tuple[int, Callable[[int], StepSizes]]] = {
        "training.genes_per_step={}": (sizes.genes_per_step, lambda n: replace(sizes, genes_per_step=n)),
        "genes.regulators=FILE, a list of {}": (sizes.regulators, lambda n: replace(sizes, regulators=n)),
        "genes.highly_variable={}": (sizes.genes, sizes.with_genes),
    }
    fitting = {text: (largest(below, to), to) for text, (below, to) in changes.items()}
    found = {text.format(n): total(to(n)) for text, (n, to) in fitting.items() if n > 1}
    found["training.optimizer=rmsprop"] = total(sizes, config.training.model_copy(update={"optimizer": "rmsprop"}))
    return [f"{text} ({needed / GIB:.1f} GiB)" for text, needed in found.items() if needed <= free]


def _largest(bytes_of: Callable[[int], int], below: int, free: int) -> int:
    """The largest n < `below`, to two digits, of which `bytes_of`, which grows with n, is at most `free`; 0: none."""
    n = bisect_right(range(1, below), free, key=bytes_of)
    step = 10 ** max(len(str(n)) - 2, 0)
    return n // step * step


def _free_memory(device: str) -> int:
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else max(available_memory() - STILL_TO_COME, 0)


def _refuse_control_share(config: RunConfig, view: View) -> None:
    share = config.training.control_share
    if share is None or config.training.sampling != "per_perturbation":
        return
    needed = {"perturbed": view.perturbed >= 0} | ({"control": view.perturbed == CONTROL} if share > 0 else {})
    for kind, cells in needed.items():
        if not cells.any():
            raise RunError(
                f"{config.store}: no {kind} cells, and training.control_share={share} draws from them; set it to "
                "null, or training.sampling=shuffled"
            )


def refuse_source(config: RunConfig, source: str, needed: float) -> None:
    """Raise unless the model can learn from `source`, whose moments take `needed` GiB.

    Raises:
        RunError: it cannot, or a setting says nothing to moments.
    """
    if source == "moments":
        _refuse_moments(config, needed)
    elif models.is_solved(config.model):
        training, why = config.training, f"training.epochs={config.training.epochs}"
        if not models.can_use_moments(config.model):
            why = "model.own_perturbation=masked needs the cells"
        elif training.source == "cells":
            why = "training.source=cells"
        elif training.epochs is None:
            why = f"they take {needed:.1f} GiB and training.moments_memory is {training.moments_memory:g}"
        raise RunError(
            f"model.form=full is solved from moments of all cells, but {why}; change that, or set model.form=bilinear"
        )


def _refuse_moments(config: RunConfig, needed: float) -> None:
    training = config.training
    if not models.can_use_moments(config.model):
        raise RunError(
            f"training.source=moments: model.kind={config.model.kind} with these settings learns from cells; set it "
            "to auto"
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
    given = {name: getattr(training, name) for name in OF_CELLS}
    chosen = [f"training.{name}={value}" for name, value in given.items() if value != _default(name)]
    if chosen:
        raise RunError(
            f"{', '.join(chosen)}: which cells a step sees means nothing here, since it learns from the moments of all "
            "cells; set training.source=cells, or leave it out"
        )


def _default(name: str) -> object:
    return TrainingConfig.model_fields[name].default
