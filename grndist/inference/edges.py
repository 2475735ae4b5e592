"""From a checkpoint to an edge list; all scores beside it, on request, from the same pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from grndist.inference.network import GeneLists, InferenceError, Network, network_of, opened_run
from grndist.inference.scores import writing_scores
from grndist.networks.edges import EdgeList, edge_list
from grndist.networks.io import read_edges
from grndist.networks.strongest import Block, Edges, strongest
from grndist.storage import fetched
from grndist.tracking.fetching import EDGES
from grndist.tracking.registry import is_registered, registered_run


def edges_of_run(
    where: str | Path,
    k: int | None = None,
    threshold: float | None = None,
    at_most: int | None = None,
    lists: GeneLists | None = None,
    scores: Path | None = None,
    overwrite: bool = False,
) -> EdgeList:
    """`edges_of_checkpoint` of the newest checkpoint of a run directory, at a path or URL, or a registered network."""
    with opened_run(where) as run:
        edges = edges_of_checkpoint(run.checkpoint, k, threshold, at_most, lists, scores, overwrite)
    return replace(edges, origin={**edges.origin, "run": run.name})


def listed_edges(where: str | Path) -> EdgeList:
    """An edge list as it stands: a file at a path or URL, or what a registered network holds (its strongest edges).

    Raises:
        UserError: there is no such file or registered network, or the network holds no edges.
    """
    if not is_registered(where):
        with fetched(where) as file:
            return read_edges(file)
    with registered_run(where) as folder:
        if not (folder / EDGES).is_file():
            raise InferenceError(
                f"{where} holds no edges, only its checkpoint; compute them: grndist infer {where} -o edges.parquet"
            )
        return read_edges(folder / EDGES)


def edges_of_checkpoint(
    folder: Path,
    k: int | None = None,
    threshold: float | None = None,
    at_most: int | None = None,
    lists: GeneLists | None = None,
    scores: Path | None = None,
    overwrite: bool = False,
) -> EdgeList:
    """The edges with the largest |weight|: exactly `k`, those of at least `threshold`, `at_most` so many, or all.

    An edge of weight 0 is none. Edges tied with the last one are taken in panel order (regulator, then target).

    Args:
        folder: the checkpoint.
        k: how many edges.
        threshold: the smallest |weight|.
        at_most: how many edges, if there are that many.
        lists: the regulators and targets that are wanted.
        scores: where to write every weight too, as a Zarr group (`scores.writing_scores`).
        overwrite: replace what is at `scores`.

    Raises:
        InferenceError: more than there are is asked for, none reaches the threshold, or a list is wrong.
        UserError: the scores cannot be written.
        CheckpointError: the checkpoint is damaged.
    """
    network = network_of(folder, lists)
    with _seen(network, scores, overwrite) as blocks:
        edges = strongest(blocks, at_most if k is None else k, threshold or 0.0)
        _check_number(folder, len(edges), k, threshold)
    return _named(network, edges)


def strongest_edges(network: Network, at_most: int | None = None, with_ties: bool = False) -> EdgeList:
    """The edges of a network that is open: all, or `at_most` so many and, if asked for, those tied with the last one.

    Without them, ties are as in `edges_of_checkpoint`.
    """
    edges = strongest(network.blocks(), at_most)
    if with_ties and len(edges) == at_most:
        edges = strongest(network.blocks(), threshold=float(np.abs(edges.weights).min()))
    return _named(network, edges)


def _named(network: Network, edges: Edges) -> EdgeList:
    about, folder = network.about, network.folder
    origin = {
        "run": str(folder.absolute().parent.parent),
        "checkpoint": folder.name,
        "store_digest": about.store_digest,
        "model": about.config["model"]["kind"],
    }
    regulators, targets = network.regulators[edges.regulators], network.targets[edges.targets]
    return edge_list(regulators, targets, edges.weights, about.genes, network.model.signed, origin)


@contextmanager
def _seen(network: Network, scores: Path | None, overwrite: bool) -> Iterator[Iterator[Block]]:
    """The blocks of a network, each written to `scores` before it is given out."""
    if scores is None:
        yield network.blocks()
        return
    with writing_scores(scores, network, overwrite) as write:

        def written() -> Iterator[Block]:
            for block in network.blocks():
                write(block)
                yield block

        yield written()


def _check_number(folder: Path, found: int, k: int | None, threshold: float | None) -> None:
    if k is not None and found < k:
        raise InferenceError(
            f"{folder}: {k} edges were asked for but the network has only {found}; ask for -k {found} or --all"
        )
    if threshold is not None and found == 0:
        raise InferenceError(f"{folder}: no edge has a |weight| of at least {threshold}; lower --threshold, or use -k")
