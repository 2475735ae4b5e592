"""From a checkpoint to an edge list, in blocks of rows: the whole adjacency is never held."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import TypeAdapter, ValidationError

from grndist import models
from grndist.errors import UserError
from grndist.networks.edges import EdgeList, edge_list
from grndist.progress import track
from grndist.storage import absolute, is_remote, open_storage
from grndist.training import checkpoint

ROWS = 256  # regulators whose row is held at a time


class InferenceError(UserError):
    """The edges asked for are not to be had."""


@dataclass(frozen=True)
class _Edges:
    """Edges by panel column, in order of regulator, then target."""

    regulators: Int64[np.ndarray, " edges"]
    targets: Int64[np.ndarray, " edges"]
    weights: Float[np.ndarray, " edges"]

    def __len__(self) -> int:
        return len(self.weights)

    def keep(self, chosen: np.ndarray) -> "_Edges":
        return _Edges(self.regulators[chosen], self.targets[chosen], self.weights[chosen])


@contextmanager
def checkpoint_of_run(where: str | Path) -> Iterator[Path]:
    """The newest checkpoint of a run directory; from a URL it is fetched, and lasts as long as the block.

    Raises:
        UserError: not a run directory, or no checkpoint yet.
    """
    storage = open_storage(where)
    try:
        storage.read("config.yaml")
    except FileNotFoundError:
        raise InferenceError(
            f"{where} is not a run directory (it has no config.yaml); give one that `grndist train` made"
        ) from None
    if not is_remote(where):
        yield checkpoint.latest(Path(where) / "checkpoints")
        return
    with tempfile.TemporaryDirectory(prefix="grndist-") as aside:
        yield checkpoint.fetch_latest(storage, "checkpoints", Path(aside), checkpoint.NETWORK_FILES)


def edges_of_run(
    where: str | Path, k: int | None = None, threshold: float | None = None, at_most: int | None = None
) -> EdgeList:
    """`edges_of_checkpoint` of the newest checkpoint of a run directory, at a path or URL."""
    with checkpoint_of_run(where) as folder:
        edges = edges_of_checkpoint(folder, k, threshold, at_most)
    return replace(edges, origin={**edges.origin, "run": absolute(where)})


def edges_of_checkpoint(
    folder: Path, k: int | None = None, threshold: float | None = None, at_most: int | None = None
) -> EdgeList:
    """The edges with the largest |weight|: exactly `k`, those of at least `threshold`, `at_most` so many, or all.

    An edge of weight 0 is none. Edges tied with the last one are taken in panel order (regulator, then target).

    Raises:
        InferenceError: more than there are is asked for, or none reaches the threshold.
        CheckpointError: the checkpoint is damaged.
    """
    about = checkpoint.describe(folder)
    model = _load(folder, about)
    edges = _Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    limit = at_most if k is None else k
    for block in _row_blocks(model, _regulators(about)):
        edges = _joined(edges, block if threshold is None else block.keep(np.abs(block.weights) >= threshold))
        edges = edges if limit is None else _top(edges, limit)
    _check_number(folder, len(edges), k, threshold)
    names = np.array(about.genes, dtype=object)
    origin = {
        "run": str(folder.absolute().parent.parent),
        "checkpoint": folder.name,
        "store_digest": about.store_digest,
        "model": about.config["model"]["kind"],
    }
    return edge_list(names[edges.regulators], names[edges.targets], edges.weights, about.genes, model.signed, origin)


def _load(folder: Path, about: checkpoint.Description) -> models.CaTran | models.GRNVAE:
    try:
        config = TypeAdapter(models.ModelConfig).validate_python(about.config["model"])
    except ValidationError as error:
        raise InferenceError(
            f"{folder}: its settings are not of this version of grndist ({error.errors()[0]['msg']}); "
            "train again, or use the version that wrote it"
        ) from error
    size = len(about.genes)
    model = models.build(config, size, lambda: (np.zeros(size), np.ones(size)), seed=0)
    model.load_state_dict(checkpoint.load_weights(folder))
    return model.eval()


def _regulators(about: checkpoint.Description) -> Int64[np.ndarray, " regulators"]:
    """Panel columns of the genes that may regulate, ascending."""
    if about.regulators is None:
        return np.arange(len(about.genes))
    may = set(about.regulators)
    return np.array([column for column, name in enumerate(about.genes) if name in may], dtype=np.int64)


def _row_blocks(model: models.Model, regulators: Int64[np.ndarray, " regulators"]) -> Iterator[_Edges]:
    starts = range(0, len(regulators), ROWS)
    for start in track(starts, "infer", len(starts)):
        rows = regulators[start : start + ROWS]
        weights = model.adjacency(torch.from_numpy(rows)).numpy()
        row, target = np.nonzero(weights)
        yield _Edges(rows[row], target, weights[row, target])


def _joined(first: _Edges, second: _Edges) -> _Edges:
    return _Edges(
        np.concatenate([first.regulators, second.regulators]),
        np.concatenate([first.targets, second.targets]),
        np.concatenate([first.weights, second.weights]),
    )


def _top(edges: _Edges, k: int) -> _Edges:
    """The k strongest; among those tied with the k-th, the first."""
    if len(edges) <= k:
        return edges
    strength = np.abs(edges.weights)
    least = np.partition(strength, -k)[-k]
    tied = np.flatnonzero(strength == least)
    chosen = strength > least
    chosen[tied[: k - np.count_nonzero(chosen)]] = True
    return edges.keep(chosen)


def _check_number(folder: Path, found: int, k: int | None, threshold: float | None) -> None:
    if k is not None and found < k:
        raise InferenceError(
            f"{folder}: {k} edges were asked for but the network has only {found}; ask for -k {found} or --all"
        )
    if threshold is not None and found == 0:
        raise InferenceError(f"{folder}: no edge has a |weight| of at least {threshold}; lower --threshold, or use -k")
