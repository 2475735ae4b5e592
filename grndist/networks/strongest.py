"""The strongest edges of a network that comes in blocks. Knows no names and no models."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32


@dataclass(frozen=True)
class Block:
    """Rows of a network's weights."""

    rows: slice  # their positions among the network's regulators
    weights: Float[np.ndarray, "regulators targets"]


@dataclass(frozen=True)
class Edges:
    """Edges by their positions among the network's regulators and targets, in that order."""

    regulators: Int32[np.ndarray, " edges"]
    targets: Int32[np.ndarray, " edges"]
    weights: Float[np.ndarray, " edges"]

    def __len__(self) -> int:
        return len(self.weights)


def strongest(blocks: Iterable[Block], limit: int | None = None, threshold: float = 0.0) -> Edges:
    """The edges with the largest |weight|, at most `limit` of them, each of at least `threshold`.

    An edge of weight 0 is none. Of edges tied with the last one those are taken that come first, by regulator, then
    target. No more than twice `limit` and the edges of one block are held.
    """
    found, least = [_none()], 0.0
    for block in blocks:
        # one that is only as strong as the last of `limit` edges before it comes too late
        found.append(_edges(block, least, threshold))
        if limit is not None and sum(map(len, found)) > 2 * limit:
            found = [top(_joined(found), limit)]
            least = float(np.abs(found[0].weights).min())
    edges = _joined(found)
    return edges if limit is None else top(edges, limit)


def _none() -> Edges:
    return Edges(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))


def _edges(block: Block, beyond: float, threshold: float) -> Edges:
    strength = np.abs(block.weights)
    chosen = strength > beyond
    if threshold > 0:
        chosen &= strength >= threshold
    regulator, target = np.divmod(np.flatnonzero(chosen), strength.shape[1])
    weights = block.weights[regulator, target]
    return Edges((regulator + block.rows.start).astype(np.int32), target.astype(np.int32), weights)


def _joined(parts: list[Edges]) -> Edges:
    return Edges(
        np.concatenate([part.regulators for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def top(edges: Edges, k: int) -> Edges:
    """The k strongest, or all if there are no more; among those tied with the k-th, the first."""
    if len(edges) <= k:
        return edges
    strength = np.abs(edges.weights)
    least = np.partition(strength, -k)[-k]
    tied = np.flatnonzero(strength == least)
    chosen = strength > least
    chosen[tied[: k - np.count_nonzero(chosen)]] = True
    return Edges(edges.regulators[chosen], edges.targets[chosen], edges.weights[chosen])
