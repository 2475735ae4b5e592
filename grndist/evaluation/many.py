"""Many networks against many references, beside chance and absolute correlation over the same candidates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from grndist.config import Config
from grndist.evaluation import top_edges
from grndist.evaluation.board import TOP, Board, table_of
from grndist.evaluation.evaluate import (
    Comparison,
    Expression,
    comparisons,
    correlation_among,
    counted,
    names_in,
    panel_of,
    refuse_foreign_genes,
    within,
)
from grndist.evaluation.references import Reference
from grndist.evaluation.scores import EvaluationError
from grndist.networks.edges import EdgeList
from grndist.networks.stability import Stability, stability
from grndist.progress import track

LARGEST = 4096  # genes of a panel whose absolute correlations are all computed, for their strongest pairs
GENERIC = ("edges", "rankededges", "network", "outfile")  # names that say nothing; the folder's does
REGISTERED = "models:/"


class ScoringConfig(Config):
    """What is computed, and over which pairs."""

    candidates: Literal["auto", "tf", "all"] = Field(
        "auto",
        description="BEELINE's: tf: pairs whose first gene is the first of a reference edge; all: all ordered pairs of "
        "reference genes; auto: tf where the reference names regulators, else all",
    )
    measures: Literal["all", "ranking", "top"] = Field(
        "all", description="of rankings, of the strongest edges, or both"
    )
    top: int = Field(1000, gt=0, description="how many strongest edges are compared, and how many replicates share")
    seed: int = Field(0, ge=0, description="of the random baseline")


@dataclass(frozen=True)
class Named:
    """A network, what it is called, and where it is."""

    name: str
    edges: EdgeList
    place: str


def short_names(places: Sequence[str]) -> list[str]:
    """A name for each network: its file's up to the first dot, or its folder's where that says nothing (edges.parquet).

    Those that share a name are called by their whole paths.

    Raises:
        EvaluationError: a place is given twice.
    """
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise EvaluationError(f"{twice[0]} is given twice; name every network and reference once")
    names = [_short(place) for place in places]
    return [place if names.count(name) > 1 else name for name, place in zip(names, places, strict=True)]


def _short(place: str) -> str:
    if place.startswith(REGISTERED):
        return place.removeprefix(REGISTERED)
    path = PurePath(place)
    name = path.name.split(".")[0]
    return (path.parent.name if name.lower() in GENERIC else name) or place


def score_many(
    networks: Sequence[Named],
    references: Mapping[str, Reference],
    expression: Expression | None,
    config: ScoringConfig,
    replicates: bool = False,
) -> Board:
    """Score every network against every reference (`evaluate` and `top_edges` have the definitions).

    Every network's panel is as in `evaluate`; networks over other genes than others have baselines of their own. The
    correlation's strongest pairs are left out for panels of more than 4,096 genes.

    Args:
        networks: with names that differ.
        references: by name.
        expression: of the absolute correlation; None: without it.
        config: what is computed.
        replicates: also measure how much the networks agree.

    Raises:
        EvaluationError: see `evaluate`; the message names the network.
        StabilityError: replicates of fewer than `config.top` edges, or a single one.
    """
    correlation = None if expression is None else _correlation(expression, references, config)
    together = _by_panel(networks, expression)
    rows: list[dict[str, Any]] = []
    counts = {}
    for name, reference in track(references.items(), "scoring against references", len(references)):
        for network in networks:
            refuse_foreign_genes(network.edges, reference, network.place)
        for panel, group in together:
            asked = _Asked(name, reference, panel, config, correlation)
            rows += [asked.about | row for row in asked.rows(group)]
        first, panel = together[0][1][0], together[0][0]
        counts[name] = counted(first.edges, reference, len(within(set(panel), reference)), len(panel), config.seed)
    places = {network.name: network.place for network in networks}
    agree = _agreement(networks, config.top) if replicates else None
    return Board(table_of(rows), places, counts, config.top, agree)


@dataclass(frozen=True)
class _Asked:
    """One reference, and the panel of some networks."""

    name: str
    reference: Reference
    panel: frozenset[str]
    config: ScoringConfig
    correlation: pd.DataFrame | None

    @property
    def about(self) -> dict[str, Any]:
        return {
            "reference": self.name,
            "directed": self.reference.names_regulators,
            "panel genes": len(self.panel),
        }

    def rows(self, group: Sequence[Named]) -> Iterator[dict[str, Any]]:
        """The networks' rows, then the baselines', for each lineage."""
        wanted = self.config.measures
        if wanted != "top":
            tf_edges, all_pairs = self.config.candidates == "tf", self.config.candidates == "all"
            for one in comparisons(self.reference, set(self.panel), all_pairs, tf_edges):
                yield from self._ranking(one, group)
        if wanted != "ranking":
            yield from self._top(group)

    def _ranking(self, one: Comparison, group: Sequence[Named]) -> Iterator[dict[str, Any]]:
        about: dict[str, Any] = {"lineage": one.lineage.name, "universe": one.candidates.universe}
        about |= {"k": one.k, "candidates": len(one.is_true)}
        for network in group:
            yield about | _as_network(network.name) | one.network(network.edges, network.place)
        yield about | _as_baseline("random") | {"covered": 1.0} | one.chance(self.config.seed)
        if self.correlation is not None:
            yield about | _as_baseline("absolute correlation") | {"covered": 1.0} | one.scores(self.correlation)

    def _top(self, group: Sequence[Named]) -> Iterator[dict[str, Any]]:
        about = {"lineage": TOP, "universe": "all pairs of the panel"}
        panel, k, is_directed = set(self.panel), self.config.top, self.reference.names_regulators
        known = within(panel, self.reference)
        for network in group:
            measured = top_edges.top_edges(network.edges, known, panel, k, is_directed)
            yield about | _as_network(network.name) | measured
        yield about | _as_baseline("random") | top_edges.chance(known, panel, k, is_directed)
        if self.correlation is not None and panel <= set(self.correlation.index):
            strongest = top_edges.strongest_pairs(self.correlation, k)
            measured = top_edges.top_edges(strongest, known, panel, k, is_directed)
            yield about | _as_baseline("absolute correlation") | measured


def _as_network(name: str) -> dict[str, Any]:
    return {"network": name, "baseline": False}


def _as_baseline(name: str) -> dict[str, Any]:
    return {"network": name, "baseline": True}


def _by_panel(networks: Sequence[Named], expression: Expression | None) -> list[tuple[frozenset[str], list[Named]]]:
    """The networks that are over the same genes, in order of the first of them."""
    together: dict[frozenset[str], list[Named]] = {}
    for network in networks:
        genes = panel_of(network.edges) if expression is None else expression.genes
        together.setdefault(frozenset(genes), []).append(network)
    return list(together.items())


def _correlation(
    expression: Expression, references: Mapping[str, Reference], config: ScoringConfig
) -> pd.DataFrame | None:
    """Absolute correlation of all genes, or of large panels among those that any reference names."""
    names = set(expression.genes)
    if len(names) > LARGEST:
        if config.measures == "top":
            return None
        names = set().union(*(names_in(reference.table) for reference in references.values()))
    return correlation_among(expression, names)


def _agreement(networks: Sequence[Named], k: int) -> Stability:
    for network in networks:
        found = int((network.edges.table["weight"] != 0).sum())
        if found < k and len(networks) > 1:
            raise EvaluationError(
                f"{network.place} has {found:,} edges, but the top {k:,} of replicates are compared; ask for fewer "
                "with --top, or list more: grndist infer RUN --all"
            )
    return stability([network.edges for network in networks], k)
