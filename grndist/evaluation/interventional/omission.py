"""CausalBench's false omission rate: of the pairs that a network leaves out, how many have an effect all the same?"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64
from pydantic import Field

from grndist.config import Config
from grndist.evaluation.interventional.cells import InterventionError
from grndist.evaluation.interventional.effects import Effects
from grndist.evaluation.interventional.paths import Lengths, Paths

Block = tuple[slice, Float64[np.ndarray, "regulators targets"], Float64[np.ndarray, "regulators targets"]]


class OmissionConfig(Config):
    """Which pairs count as left out, and how many of them are looked at."""

    pairs: int | None = Field(
        500, ge=0, description="drawn as the benchmark draws them; null: all of them, which takes an effect atlas"
    )
    seed: int = Field(0, ge=0, description="of the draw; causalbench 1.1.2 always has 0")
    max_path_length: int | None = Field(
        3, ge=1, description="pairs with a path of so many edges are not left out; null: of any length"
    )
    lengths: Lengths = Field(
        "causalbench",
        description="causalbench: its own lengths, by which 3 stands for 4 edges and 4 for 8; true: as said",
    )


@dataclass(frozen=True)
class Omission:
    """The rate, and what it is of."""

    rate: float  # share of `pairs` with p < alpha; NaN for `reason`
    wasserstein: float  # their mean distance
    pairs: int  # looked at
    left_out: int  # testable pairs without a path
    reason: str = ""  # why there is no rate


@runtime_checkable
class AllEffects(Effects, Protocol):
    """Effects of every pair, known beforehand."""

    def blocks(self) -> Iterator[Block]:
        """P and distance of all regulators, some targets at a time."""


@dataclass(frozen=True, eq=False)
class Universe:
    """The testable pairs among some genes."""

    genes: pd.Index
    regulators: pd.Index  # those perturbed in some cells
    targets: pd.Index  # those measured

    def left_out(self, paths: Paths) -> Bool[np.ndarray, "regulators targets"]:
        """Whether there is no path from a regulator to a target, another gene."""
        mask = np.ones((len(self.regulators), len(self.targets)), dtype=bool)
        column = paths.genes.get_indexer(self.targets)
        own, source = self.targets.get_indexer(self.regulators), paths.genes.get_indexer(self.regulators)
        mask[np.flatnonzero(own >= 0), own[own >= 0]] = False
        for at in np.flatnonzero(source >= 0).tolist():
            mask[at] &= ~(paths.row(int(source[at]))[column] & (column >= 0))
        return mask


def universe(effects: Effects, genes: Sequence[str] | None = None) -> Universe:
    """Pairs of some genes; None: of the panel and of perturbed genes that were not measured, in this order."""
    index = pd.Index(effects.genes if genes is None else genes, dtype=object)
    return Universe(index, index[index.isin(effects.regulators)], index[index.isin(effects.targets)])


def omissions(
    effects: Effects,
    networks: Sequence[Paths],
    config: OmissionConfig,
    alpha: float = 0.05,
    genes: Sequence[str] | None = None,
) -> list[Omission]:
    """The false omission rate of each network, or the reason why it has none: a complete network leaves out no pair.

    Args:
        effects: where the tests come from; those of all networks are made together.
        networks: the pairs of each that have a path.
        config: how many pairs are looked at.
        alpha: p below which a pair has an effect.
        genes: pairs are of these, in this order; see `universe`.

    Raises:
        InterventionError: all pairs are wanted of effects that are not an atlas.
    """
    among = universe(effects, genes)
    if config.pairs is None:
        return [_of_all(effects, among, paths, alpha) for paths in networks]
    drawn = [_drawn(among, paths, config.pairs, config.seed) for paths in networks]
    together = pd.concat([pairs for pairs, _ in drawn]).drop_duplicates() if drawn else pd.DataFrame()
    tested = pd.concat([together, effects.test(together)], axis=1) if len(together) else None
    found = []
    for pairs, left_out in drawn:
        if len(pairs) == 0 or tested is None:
            found.append(Omission(np.nan, np.nan, 0, left_out, _reason(left_out)))
            continue
        own = pairs.merge(tested, how="left", on=["regulator", "target"])
        rate, distance = float((own["p"] < alpha).mean()), float(own["wasserstein"].mean())
        found.append(Omission(rate, distance, len(pairs), left_out))
    return found


def drawn_pairs(among: Universe, paths: Paths, number: int, seed: int) -> pd.DataFrame:
    """Different testable pairs without a path, columns regulator and target, drawn as the benchmark does.

    Python's generator seeded with `seed` draws two of the genes, in their order, until so many are found; pairs that
    have a path or are untestable are passed over. Where there are so many at most, all are taken: there the benchmark
    draws for long, or for ever.
    """
    return _drawn(among, paths, number, seed)[0]


def _drawn(among: Universe, paths: Paths, number: int, seed: int) -> tuple[pd.DataFrame, int]:
    """The pairs, and how many there are to draw from."""
    mask = among.left_out(paths)
    left_out = int(np.count_nonzero(mask))
    drawn = np.argwhere(mask) if left_out <= number else _draws(among, mask, number, seed)
    regulators, targets = among.regulators[drawn[:, 0]], among.targets[drawn[:, 1]]
    return pd.DataFrame({"regulator": regulators, "target": targets}), left_out


def _draws(
    among: Universe, mask: Bool[np.ndarray, "regulators targets"], number: int, seed: int
) -> Int64[np.ndarray, "pairs 2"]:
    row, column = among.regulators.get_indexer(among.genes), among.targets.get_indexer(among.genes)
    generator, genes, found = random.Random(seed), range(len(among.genes)), dict[tuple[int, int], None]()
    while len(found) < number:
        source, target = generator.sample(genes, 2)
        if row[source] >= 0 and column[target] >= 0 and mask[row[source], column[target]]:
            found[int(row[source]), int(column[target])] = None
    return np.array(list(found), dtype=np.int64).reshape(-1, 2)


def _of_all(effects: Effects, among: Universe, paths: Paths, alpha: float) -> Omission:
    if not isinstance(effects, AllEffects):
        raise InterventionError(
            f"{effects.place}: the false omission rate over all pairs takes their effects; make an atlas of them first "
            "(grndist effects STORE -o NAME.zarr), or draw some pairs"
        )
    mask = among.left_out(paths)
    rows, columns = among.regulators.get_indexer(effects.regulators), among.targets.get_indexer(effects.targets)
    pairs, hits, distance = int(np.count_nonzero(mask)), 0, 0.0
    for part, p, wasserstein in effects.blocks():
        own = mask[np.ix_(rows, columns[part])] & (rows >= 0)[:, None] & (columns[part] >= 0)
        hits += int(np.count_nonzero(p[own] < alpha))
        distance += float(wasserstein[own].sum())
    if pairs == 0:
        return Omission(np.nan, np.nan, 0, 0, _reason(0))
    return Omission(hits / pairs, distance / pairs, pairs, pairs)


def _reason(left_out: int) -> str:
    if left_out:
        return "no pairs were to be drawn"
    return "no testable pair is left out: from every regulator there is a path to every target"
