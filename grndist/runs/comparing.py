"""Two networks beside each other: their edges, what they scored, and what they were made from and with."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grndist.errors import UserError
from grndist.inference import listed_edges, opened_run
from grndist.networks.compare import jaccard_at, overlap_at, spearman
from grndist.networks.edges import EdgeList
from grndist.networks.io import EdgeFileError, table_ending
from grndist.runs.logged import HELD, strongest
from grndist.runs.registering import own_store, tracking_of
from grndist.tracking.keys import flat
from grndist.tracking.registry import Registry, is_registered
from grndist.tracking.stores import store_uri

SIZES = tuple(10**power for power in range(1, 7))
DIGESTS = ("store_digest", "view_digest")  # compared by themselves
ABSENT = "-"


@dataclass(frozen=True)
class Side:
    """One of two networks."""

    name: str
    edges: EdgeList
    store_digest: str = ""  # empty: not known
    settings: Mapping[str, Any] | None = None  # of its run; None: not known
    scores: Mapping[str, Any] = field(default_factory=dict)
    unknown: str = ""  # why the scores are not known


@dataclass(frozen=True)
class Comparison:
    """What two networks have in common, and in what they differ."""

    a: Side
    b: Side
    overlaps: Mapping[int, tuple[float, float]]  # by k: overlap and Jaccard of the k strongest edges
    correlation: float  # Spearman's, of signed weights; NaN where there is none
    settings: Mapping[str, tuple[Any, Any]]  # those that differ, by key

    def lines(self) -> list[str]:
        """All of it as text."""
        return [*self._edges(), "", *self._scores(), "", self._data(), *self._settings()]

    def _edges(self) -> list[str]:
        sides = [f"{letter}: {side.name}, {len(side.edges):,} edges" for letter, side in (("A", self.a), ("B", self.b))]
        rows = [f"{k:>12,}  {overlap:>7.3f}  {jaccard:>7.3f}" for k, (overlap, jaccard) in self.overlaps.items()]
        rank = (
            "not defined, all weights of one are the same"
            if math.isnan(self.correlation)
            else f"{self.correlation:.3f}"
        )
        return [*sides, "", "   strongest  overlap  Jaccard", *rows, f"rank correlation of the weights: {rank}"]

    def _scores(self) -> list[str]:
        reasons = [f"scores of {side.name}: not known, {side.unknown}" for side in (self.a, self.b) if side.unknown]
        names = sorted({*self.a.scores, *self.b.scores})
        if not names:
            return reasons or ["scores: none were logged; grndist evaluate does"]
        width = max(map(len, names))
        rows = [f"{name:<{width}}  {_shown(self.a, name):>9}  {_shown(self.b, name):>9}" for name in names]
        return [f"{'scores':<{width}}  {'A':>9}  {'B':>9}", *rows, *reasons]

    def _data(self) -> str:
        ours, theirs = self.a.store_digest, self.b.store_digest
        if not (ours and theirs):
            return "data: not known of " + " and ".join(side.name for side in (self.a, self.b) if not side.store_digest)
        return (
            f"data: the same store ({ours[:12]})"
            if ours == theirs
            else f"data: other stores ({ours[:12]}, {theirs[:12]})"
        )

    def _settings(self) -> list[str]:
        unknown = [side.name for side in (self.a, self.b) if side.settings is None]
        if unknown:
            return [f"settings: not known of {' and '.join(unknown)}"]
        if not self.settings:
            return ["settings: the same"]
        return ["settings that differ (A, B):", *(f"  {key}: {a}, {b}" for key, (a, b) in self.settings.items())]


def compared(a: str, b: str, sizes: Sequence[int] = (), uri: str = "", runs: str = "runs") -> Comparison:
    """Compare two networks: run directories, edge lists, both at paths or URLs, or registered networks.

    Of a run, its newest checkpoint's strongest edges are taken, at most a million; an edge list is taken as it is.

    Args:
        a: one of them.
        b: the other.
        sizes: how many of the strongest edges to compare; none: 10, 100, ... up to the shorter list, and that.
        uri: the store of registered networks; see `stores.store_uri`.
        runs: where it is otherwise.

    Raises:
        UserError: one of them is not there.
    """
    one, other = side_of(a, uri, runs), side_of(b, uri, runs)
    shorter = min(len(one.edges), len(other.edges))
    sizes = sorted({*sizes} or {*(size for size in SIZES if size < shorter), max(1, shorter)})
    overlaps = {k: (overlap_at(one.edges, other.edges, k), jaccard_at(one.edges, other.edges, k)) for k in sizes}
    differences = differing(one.settings or {}, other.settings or {})
    return Comparison(one, other, overlaps, spearman(one.edges, other.edges), differences)


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of two runs that are not the same, by their key; `-` where one has none."""
    ours, theirs = flat(a), flat(b)
    keys = sorted({*ours, *theirs} - {*DIGESTS})
    pairs = {key: (ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def side_of(where: str, uri: str, runs: str) -> Side:
    """A run directory, an edge list or a registered network, with all that is known of it."""
    if is_registered(where):
        return _of_registered(where, uri, runs)
    if _is_edge_list(where):
        edges = listed_edges(where)
        return Side(where, edges, edges.origin.get("store_digest", ""), unknown="it is only an edge list")
    with opened_run(where) as run:
        edges, _ = strongest(run.name, run.checkpoint)
        scores, unknown = _scores_of(where)
        return Side(where, edges, run.settings.get("store_digest", ""), run.settings, scores, unknown)


def _of_registered(where: str, uri: str, runs: str) -> Side:
    registry = Registry.at(store_uri(uri, runs))
    version = registry.find(where)
    with registry.opened(version) as folder, opened_run(folder) as run:
        file = folder / "edges.parquet"
        edges = listed_edges(file) if file.is_file() else strongest(where, run.checkpoint, HELD)[0]
        scores = registry.scores(version.run_id)
        return Side(version.address, edges, run.settings.get("store_digest", ""), run.settings, scores)


def _is_edge_list(where: str) -> bool:
    try:
        table_ending(Path(where))
    except EdgeFileError:
        return False
    return not (Path(where) / "config.yaml").is_file()


def _scores_of(where: str) -> tuple[Mapping[str, Any], str]:
    """The scores that were logged of a run directory, or why they are not known."""
    try:
        tracked, run_id = tracking_of(where)
        registry = Registry.at(own_store(where, tracked))
        return registry.scores(run_id), ""
    except UserError as error:  # it can be compared without
        return {}, str(error)


def _shown(side: Side, name: str) -> str:
    value = side.scores.get(name, ABSENT)
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value) if value != ABSENT else ABSENT
