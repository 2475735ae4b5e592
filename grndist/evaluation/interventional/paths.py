"""Which genes a network leads to from which, over paths of limited length.

CausalBench's false omission rate is of pairs without a path, so it depends on how long a path may be. The benchmark
takes the network together with itself again and again ("causalbench" lengths; `Evaluator.evaluate_network` of
causalbench 1.1.2): round r of `max_path_length` - 1 doubles the length, so 3 stands for paths of up to 4 edges and 4
for up to 8. "true" lengths are what the name says: round r adds paths of r + 1 edges.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt64
from numba import njit

Lengths = Literal["causalbench", "true"]
WORD = 64  # genes to a word


@dataclass(frozen=True, eq=False)
class Paths:
    """Pairs of two different genes of a network with a path from one to the other."""

    genes: pd.Index  # those with an edge
    words: UInt64[np.ndarray, "genes words"]  # bit t of row s: there is a path from s to t

    @property
    def number(self) -> int:
        """Pairs with a path."""
        return int(np.bitwise_count(self.words).sum())

    def row(self, source: int) -> Bool[np.ndarray, " genes"]:
        """To which of `genes` there is a path from the one of this number."""
        bits = self.words[source].astype("<u8").view(np.uint8)
        return np.unpackbits(bits, count=len(self.genes), bitorder="little").astype(bool)

    def pairs(self) -> pd.DataFrame:
        """All of them, as columns regulator and target, in the order of `genes`."""
        rows = [np.flatnonzero(self.row(source)) for source in range(len(self.genes))]
        sources = np.repeat(np.arange(len(self.genes)), [len(row) for row in rows])
        names = self.genes.to_numpy()
        return pd.DataFrame(
            {"regulator": names[sources], "target": names[np.concatenate([[], *rows]).astype(np.int64)]}
        )


def paths(edges: pd.DataFrame, max_path_length: int | None = 3, lengths: Lengths = "causalbench") -> Paths:
    """The last of `deepening`."""
    for found in deepening(edges, max_path_length, lengths):
        last = found
    return last


def deepening(
    edges: pd.DataFrame, max_path_length: int | None = 3, lengths: Lengths = "causalbench"
) -> Iterator[Paths]:
    """The edges themselves, then the pairs with a path after every round that adds some.

    Args:
        edges: columns regulator and target; an edge from a gene to itself is no path.
        max_path_length: rounds + 1; None: as many rounds as add something, which is a path of any length.
        lengths: what a round does, see above.
    """
    names = pd.Index(np.unique(np.concatenate([edges["regulator"], edges["target"]]).astype(object)), dtype=object)
    first = _packed(names.get_indexer(edges["regulator"]), names.get_indexer(edges["target"]), len(names))
    now = first
    yield Paths(names, now)
    rounds = len(names) if max_path_length is None else max_path_length - 1
    for _ in range(rounds):
        deeper = _extended(now if lengths == "causalbench" else first, now)
        if np.array_equal(deeper, now):
            return
        now = deeper
        yield Paths(names, now)


def _packed(source: np.ndarray, target: np.ndarray, n_genes: int) -> UInt64[np.ndarray, "genes words"]:
    words = np.zeros((n_genes, -(-n_genes // WORD)), dtype=np.uint64)
    other = source != target
    bits = np.uint64(1) << (target[other] % WORD).astype(np.uint64)
    np.bitwise_or.at(words, (source[other], target[other] // WORD), bits)
    return words


@njit(nogil=True, cache=True)
@no_type_check
def _extended(step, reach):
    """Rows of `reach` with those of all genes that `step` leads to; never a gene to itself."""
    one = np.uint64(1)
    extended = reach.copy()
    for source in range(len(step)):
        for word in range(step.shape[1]):
            bits = step[source, word]
            for bit in range(64):
                if (bits >> np.uint64(bit)) & one:
                    via = word * 64 + bit
                    for at in range(step.shape[1]):
                        extended[source, at] |= reach[via, at]
        extended[source, source // 64] &= ~(one << np.uint64(source % 64))
    return extended
