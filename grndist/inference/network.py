"""A trained network: the model of a checkpoint, and the genes that its rows and columns stand for."""

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float, Int64
from pydantic import TypeAdapter, ValidationError

from grndist import models
from grndist.data.selection.gene_names import read_gene_list
from grndist.errors import UserError
from grndist.genes import some
from grndist.networks.strongest import Block
from grndist.progress import track
from grndist.storage import Storage, absolute, is_remote, open_storage
from grndist.tracking.fetching import ABOUT
from grndist.tracking.registry import is_registered, refuse_unknown, registered_run
from grndist.training import checkpoint

ROWS = 256  # regulators whose row is held at a time


class InferenceError(UserError):
    """What is asked of a network is not to be had."""


@dataclass(frozen=True)
class GeneLists:
    """Text files that name, one gene a line, which regulators and targets are wanted; None: all."""

    regulators: Path | None = None
    targets: Path | None = None


@dataclass(frozen=True)
class Network:
    """A model and the part of its adjacency that is wanted, as ascending rows and columns of it."""

    folder: Path  # of the checkpoint
    about: checkpoint.Description
    model: models.Model
    rows: Int64[np.ndarray, " regulators"]
    columns: Int64[np.ndarray, " targets"]
    undirected: bool = False  # both directions of a pair are one edge

    @property
    def regulators(self) -> np.ndarray:
        """Names of the rows, as objects."""
        return np.array(row_names(self.about), dtype=object)[self.rows]

    @property
    def targets(self) -> np.ndarray:
        """Names of the columns, as objects."""
        return np.array(self.about.genes, dtype=object)[self.columns]

    def limited(self, regulators: Collection[str], targets: Collection[str] | None = None) -> "Network":
        """Those of its rows and columns that are named (None: all columns); other names are passed over."""
        rows = np.isin(self.regulators, list(regulators))
        columns = np.isin(self.targets, list(targets)) if targets is not None else slice(None)
        return replace(self, rows=self.rows[rows], columns=self.columns[columns])

    def blocks(self) -> Iterator[Block]:
        """The adjacency, block by block in order of its rows.

        Raises:
            InferenceError: a weight is not finite.
        """
        starts = range(0, len(self.rows), ROWS)
        whole = len(self.columns) == len(self.about.genes)
        for start in track(starts, "infer", len(starts)):
            rows = self.rows[start : start + ROWS]
            weights = self.model.adjacency(torch.from_numpy(rows)).numpy()
            self._refuse_not_finite(weights)
            weights = weights if whole else weights[:, self.columns]
            if self.undirected:
                weights = np.where(self._repeats(rows), 0, weights)
            yield Block(slice(start, start + len(rows)), weights)

    def _repeats(self, rows: Int64[np.ndarray, " rows"]) -> Bool[np.ndarray, "rows targets"]:
        """Pairs against panel order that are wanted in panel order, too."""
        both_ways = np.isin(rows, self.columns)[:, None] & np.isin(self.columns, self.rows)
        return both_ways & (rows[:, None] > self.columns)

    def _refuse_not_finite(self, weights: Float[np.ndarray, "regulators targets"]) -> None:
        if not np.isfinite(weights).all():
            raise InferenceError(
                f"{self.folder}: the network holds weights that are not finite, so training has diverged; "
                "train again with a smaller training.learning_rate"
            )


@dataclass(frozen=True)
class OpenedRun:
    """A run that is to be read, wherever it is."""

    name: str  # the run directory, an absolute path or URL; of a registered network the one that it came from
    checkpoint: Path  # the newest
    settings: dict[str, Any]  # its config.yaml


@contextmanager
def opened_run(where: str | Path) -> Iterator[OpenedRun]:
    """A run directory, at a path or URL, or a registered network, `models:/NAME@ALIAS`.

    What is not on this machine is fetched, and lasts as long as the block.

    Raises:
        UserError: not a run directory, no checkpoint yet, or no such registered network.
    """
    if is_registered(where):
        with registered_run(where) as folder, opened_run(folder) as run:
            yield replace(run, name=_origin(folder) or str(where))
        return
    storage = open_storage(where)
    settings = _settings(where, storage)
    if not is_remote(where):
        yield OpenedRun(absolute(where), checkpoint.latest(Path(where) / "checkpoints"), settings)
        return
    with tempfile.TemporaryDirectory(prefix="grndist-") as aside:
        newest = checkpoint.fetch_latest(storage, "checkpoints", Path(aside), checkpoint.NETWORK_FILES)
        yield OpenedRun(absolute(where), newest, settings)


@contextmanager
def checkpoint_of_run(where: str | Path) -> Iterator[Path]:
    """The newest checkpoint of what `opened_run` opens; one that is fetched lasts as long as the block."""
    with opened_run(where) as run:
        yield run.checkpoint


def refuse_no_run(where: str | Path) -> None:
    """Raise unless there is a run, or a registered network; call it before long work.

    Raises:
        UserError: there is none, or it has no checkpoint yet.
    """
    if is_registered(where):
        refuse_unknown(where)
        return
    with opened_run(where):
        pass


def _settings(where: str | Path, storage: Storage) -> dict[str, Any]:
    try:
        return yaml.safe_load(storage.read("config.yaml")) or {}
    except FileNotFoundError:
        raise InferenceError(
            f"{where} is not a run directory (it has no config.yaml); give one that `grndist train` made"
        ) from None
    except yaml.YAMLError as error:
        raise InferenceError(
            f"{where}/config.yaml is damaged ({error}); bring back what `grndist train` wrote"
        ) from None


def _origin(folder: Path) -> str:
    """The run directory that a fetched network came from, if it says so."""
    about = folder / ABOUT
    return json.loads(about.read_text(encoding="utf-8")).get("run", "") if about.is_file() else ""


def network_of(folder: Path, lists: GeneLists | None = None) -> Network:
    """The network of a checkpoint, limited to the genes of `lists`.

    Raises:
        InferenceError: a list names a gene that is not in the network.
        SelectionError: a list cannot be read, or is empty.
        CheckpointError: the checkpoint is damaged.
    """
    about, lists = checkpoint.describe(folder), lists or GeneLists()
    names = row_names(about)
    may = names if about.regulators is None else about.regulators
    rows = _positions(names, may)
    if lists.regulators is not None:
        wanted = _listed(lists.regulators, "--regulators", may, "regulators")
        rows = _positions(names, wanted)
    columns = np.arange(len(about.genes))
    if lists.targets is not None:
        columns = _positions(about.genes, _listed(lists.targets, "--targets", about.genes, "genes"))
    model = load_model(folder, about)
    return Network(folder, about, model, rows, columns, models.is_undirected(model.config))


def load_model(folder: Path, about: checkpoint.Description) -> models.AnyModel:
    """The model of a checkpoint, ready to be asked.

    Raises:
        InferenceError: its settings are not of this version.
        CheckpointError: its weights are damaged.
    """
    try:
        config = TypeAdapter(models.ModelConfig).validate_python(about.config["model"])
    except ValidationError as error:
        raise InferenceError(
            f"{folder}: its settings are not of this version of grndist ({error.errors()[0]['msg']}); "
            "train again, or use the version that wrote it"
        ) from error
    return models.load(config, len(about.genes), checkpoint.load_weights(folder))


def row_names(about: checkpoint.Description) -> list[str]:
    """The names of the adjacency's rows: the panel, then perturbed genes that were not measured."""
    return about.genes + (about.unmeasured or [])


def _positions(names: Sequence[str], wanted: Sequence[str]) -> Int64[np.ndarray, " genes"]:
    """Where `wanted` are among `names`, ascending."""
    chosen = set(wanted)
    return np.array([position for position, name in enumerate(names) if name in chosen], dtype=np.int64)


def _listed(file: Path, option: str, known: Sequence[str], what: str) -> list[str]:
    wanted, there = read_gene_list(file, option), set(known)
    unknown = [name for name in wanted if name not in there]
    if unknown:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        raise InferenceError(
            f"{file}, line {lines.index(unknown[0]) + 1}: {unknown[0]!r} is not one of the run's {len(known):,} {what} "
            f"({some(known)}); {len(unknown):,} of the file's {len(wanted):,} names are not; correct or delete them"
        )
    return wanted
