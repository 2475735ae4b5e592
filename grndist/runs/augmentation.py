"""`model.augmentation: auto`: pilots choose the rate without a reference network, before the training itself.

A pilot is a training on four fifths of the training cells, which all pilots share. Every rate has pilots of the same
seeds. Two things are measured: how far the strongest edges of different seeds agree, and how well entries of the other
cells are predicted from the other genes of their cell.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from grndist import models
from grndist.config import read_tree
from grndist.data.selection.split import parted
from grndist.data.view import View
from grndist.files import written_aside
from grndist.inference.network import ROWS
from grndist.networks.strongest import Block, strongest
from grndist.parallel import pieces
from grndist.progress import bar
from grndist.runs.config import RunConfig
from grndist.runs.folder import AUGMENTATION, write_config
from grndist.runs.learning import learning, steps_of, steps_per_epoch
from grndist.runs.workplace import RunError
from grndist.seeds import stream
from grndist.training.loop import TrainingError, held_out_loss, train

RATES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SEEDS = 3
HELD_OUT = 0.2
EDGES_PER_GENE = 5  # strongest ones, whose agreement is measured
SHARE_OF_PAIRS = 0.1  # they are no more than this: where every pair is chosen, all networks agree
NEARLY = 1.05  # times the least reconstruction loss

Precision = Callable[[], AbstractContextManager[Any]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measures:
    """What the pilots of a rate have shown."""

    rate: float
    agreement: float  # Jaccard index of the strongest edges, mean over pairs of seeds
    reconstruction: float  # the loss of that name on held-out cells; mean over seeds
    error: float  # mean square, as z-scores, of held-out non-zero entries; mean over seeds


def as_begun(folder: Path, config: RunConfig) -> RunConfig:
    """The settings with the rate that was chosen when the run of this folder was begun; as they are if none was."""
    about = _about(folder)
    if not about or not models.pilot_epochs(config.model):
        return config
    is_open = read_tree(folder / "config.yaml")["model"].get("augmentation") == "auto"
    return config if is_open else _with_rate(config, about["rate"])


def reason(folder: Path) -> str:
    """The rate that pilots have chosen for this run and why, in words; empty where it was given."""
    return str(_about(folder).get("reason", ""))


def settled(folder: Path, config: RunConfig, view: View, precision: Precision) -> RunConfig:
    """The settings with a rate that pilots choose, which the run directory has from now on; `config` is resolved.

    Raises:
        RunError: there are too few cells to hold some out.
        TrainingError: a pilot's loss is not finite.
    """
    found = measured(config, view, precision)
    rate = chosen(found)
    about = {"rate": rate, "reason": _reason(rate, found), "pilots": [asdict(measures) for measures in found]}
    logger.info("%s", "\n".join([*_table(found), str(about["reason"])]))
    with written_aside(folder / AUGMENTATION, overwrite=True) as aside:
        aside.write_text(json.dumps(about, indent=1))
    config = _with_rate(config, rate)
    write_config(folder, config, view)  # from here on the choice stands
    return config


def chosen(measures: Sequence[Measures]) -> float:
    """The rate: of those that reconstruct nearly as well as any, that which predicts best; the lower of equals.

    Either measure alone goes far wrong somewhere, and agreement does: networks that have collapsed may all be the same
    (docs/experiments.md).
    """
    least = min(found.reconstruction for found in measures)
    good = [found for found in measures if found.reconstruction <= NEARLY * least]
    return min(good, key=lambda found: (found.error, found.rate)).rate


def measured(config: RunConfig, view: View, precision: Precision) -> list[Measures]:
    """What pilots show of every rate; they take most of the time of a run.

    Raises:
        RunError: there are too few cells to hold some out.
        TrainingError: a pilot's loss is not finite.
    """
    seeds = _seeds(config)
    cells, held_out = parted(view, HELD_OUT, seeds[0])
    if not held_out.n_cells:
        raise RunError(
            f"model.augmentation=auto holds out {HELD_OUT:.0%} of the cells of every label, which of {view.n_cells:,} "
            "cells is none; give a number, e.g. model.augmentation=0.1"
        )
    n_pilots, steps = len(RATES) * SEEDS, steps_of(_trial(config, cells), cells)
    logger.info(
        "model.augmentation=auto: %d pilots of %s steps (%d rates, %d seeds of each) on %s cells, %s held out",
        n_pilots, f"{steps:,}", len(RATES), SEEDS, f"{cells.n_cells:,}", f"{held_out.n_cells:,}",
    )  # fmt: skip
    with bar() as progress:
        task = progress.add_task("pilots", total=n_pilots * steps)
        pilots = _Pilots(config, cells, held_out, precision, lambda *news: progress.advance(task))
        return [pilots.measures(rate) for rate in RATES]


@dataclass(frozen=True)
class _Pilots:
    """Short trainings that differ in rate and seed alone."""

    config: RunConfig  # of the run
    cells: View
    held_out: View
    precision: Precision
    on_step: Callable[..., None]

    def measures(self, rate: float) -> Measures:
        """What the pilots of a rate show.

        Raises:
            TrainingError: the loss of one is not finite.
        """
        try:
            found = [self.pilot(rate, seed) for seed in _seeds(self.config)]
        except TrainingError as error:
            raise TrainingError(f"a pilot of model.augmentation={rate:g}: {error}; or give a rate yourself") from error
        edges, reconstructions, errors = zip(*found, strict=True)
        return Measures(rate, agreement(edges), float(np.mean(reconstructions)), float(np.mean(errors)))

    def pilot(self, rate: float, seed: int) -> tuple[Int64[np.ndarray, " edges"], float, float]:
        """The strongest edges, as regulator * genes + target, and reconstruction and error of held-out cells."""
        config = _with_rate(_trial(self.config, self.cells, seed), rate)
        learns = learning(config, self.cells, self.held_out)
        train(learns.state, learns.batch_at, learns.steps, self.on_step, self.precision)
        model: Any = learns.state.model.eval()
        found = strongest(_blocks(model, config.training.device), _n_edges(self.cells))
        validation = learns.validation
        assert validation is not None
        reconstruction = held_out_loss(model, validation.batches(), validation.terms, self.precision)
        error = models.held_out_error(model, validation.batches())
        return found.regulators.astype(np.int64) * self.cells.n_genes + found.targets, reconstruction, error


def agreement(edges: Sequence[Int64[np.ndarray, " _"]]) -> float:
    """The mean Jaccard index of two of these sets of edges, over all pairs; of two empty ones 0."""
    found = [
        len(np.intersect1d(one, other)) / max(len(np.union1d(one, other)), 1) for one, other in combinations(edges, 2)
    ]
    return float(np.mean(found))


def _seeds(config: RunConfig) -> list[int]:
    return [int(stream(config.training.seed, "pilot", number).integers(2**32)) for number in range(SEEDS)]


def _trial(config: RunConfig, view: View, seed: int = 0) -> RunConfig:
    """The settings of a pilot, but for the rate."""
    training, epochs = config.training, models.pilot_epochs(config.model)
    update: dict[str, Any] = {"seed": seed, "validation": HELD_OUT, "patience": None}
    if training.epochs is not None:
        update |= {"epochs": min(training.epochs, epochs)}
    if training.steps is not None:
        update |= {"steps": min(training.steps, epochs * steps_per_epoch(config, view))}
    return config.model_copy(update={"training": training.model_copy(update=update)})


def _with_rate(config: RunConfig, rate: float) -> RunConfig:
    return config.model_copy(update={"model": models.with_augmentation(config.model, rate)})


def _n_edges(view: View) -> int:
    """How many of the strongest edges are compared."""
    n_regulators = view.n_genes if view.is_regulator is None else int(view.is_regulator.sum())
    pairs = n_regulators * (view.n_genes - 1)
    return max(min(EDGES_PER_GENE * view.n_genes, int(SHARE_OF_PAIRS * pairs)), 1)


def _blocks(model: models.Model, device: str) -> Iterator[Block]:
    for rows in pieces(model.n_regulators, ROWS):
        yield Block(rows, model.adjacency(torch.arange(rows.start, rows.stop, device=device)).cpu().numpy())


def _about(folder: Path) -> dict[str, Any]:
    file = folder / AUGMENTATION
    return json.loads(file.read_text()) if file.is_file() else {}


def _table(measures: Sequence[Measures]) -> list[str]:
    rows = [
        f"{found.rate:>5g}  {found.agreement:9.3f}  {found.reconstruction:14.4f}  {found.error:17.4f}"
        for found in measures
    ]
    return [" rate  agreement  reconstruction  error from others", *rows]


def _reason(rate: float, measures: Sequence[Measures]) -> str:
    own = next(found for found in measures if found.rate == rate)
    losses, errors = ([getattr(found, name) for found in measures] for name in ("reconstruction", "error"))
    return (
        f"model.augmentation: {rate:g}, chosen by {len(measures) * SEEDS} pilots: held-out reconstruction "
        f"{own.reconstruction:.3g} (of all rates {min(losses):.3g} to {max(losses):.3g}), error from other genes "
        f"{own.error:.3g} ({min(errors):.3g} to {max(errors):.3g}), agreement of {SEEDS} seeds {own.agreement:.2f}"
    )
