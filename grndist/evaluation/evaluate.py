"""An edge list against a reference network: the measures of both lineages, beside chance and correlation.

The candidates are the pairs that could have been right or wrong: both genes in the reference and in the panel, never a
gene with itself. A candidate that the edge list lacks scores 0.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32
from scipy import sparse

from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.store import Store
from grndist.evaluation import ranking
from grndist.evaluation.baselines import absolute_correlation, random_scores
from grndist.evaluation.candidates import Candidates, candidates_of
from grndist.evaluation.ranking import Mask, Score, Signs
from grndist.evaluation.references import Reference
from grndist.evaluation.scores import RANDOM_DRAWS, Counts, EvaluationError, Scores
from grndist.genes import some
from grndist.networks.edges import EdgeList


@dataclass(frozen=True)
class Expression:
    """What the correlation baseline is computed from: blocks of cells x genes, in the state a model would see."""

    genes: tuple[str, ...]
    blocks: Callable[[], Iterable[Float32[np.ndarray, "cells genes"]]]


def expression_of(store: Store) -> Expression:
    """A store's values on the log scale, as the correlation baseline takes them."""

    def blocks() -> Iterator[Float32[np.ndarray, "cells genes"]]:
        for rows, values in store.blocks():
            yield sparse.csr_matrix(expression(values, store.totals[rows], store, ExpressionConfig())).toarray()

    return Expression(store.panel.names, blocks)


@dataclass(frozen=True)
class Lineage:
    """One family of definitions."""

    name: str
    top: Callable[[Score, int], Mask]
    early_precision: Callable[[Score, Mask], float]
    area: Callable[[Score, Mask], float]
    signed_ratio: Callable[[Score, Mask, Signs, Literal[1, -1]], float] | None

    def measure(self, score: Score, is_true: Mask, signs: Signs | None = None) -> dict[str, float]:
        """The measures of one ranking of the candidates; with `signs` of the true edges, EPR of either sign too."""
        early, area = self.early_precision(score, is_true), self.area(score, is_true)
        over_chance, under_curve = ranking.ratio_to_chance, ranking.auroc(score, is_true)
        measured = {
            "EPR": over_chance(early, is_true),
            "AUPRC": area,
            "AUPRC ratio": over_chance(area, is_true),
            "AUROC": under_curve,
            "AUROC ratio": 2 * under_curve,
        }
        if signs is not None and self.signed_ratio is not None:
            measured["EPR activation"] = self.signed_ratio(score, is_true, signs, 1)
            measured["EPR repression"] = self.signed_ratio(score, is_true, signs, -1)
        return measured


DAZZLE = Lineage("DAZZLE", ranking.dazzle_top, ranking.dazzle_early_precision, ranking.dazzle_average_precision, None)
BEELINE = Lineage(
    "BEELINE",
    ranking.beeline_top,
    ranking.beeline_early_precision,
    ranking.beeline_auprc,
    ranking.beeline_signed_ratio,
)


@dataclass(frozen=True)
class Comparison:
    """Candidate edges, and which of them are in the reference, by the definitions of one lineage."""

    lineage: Lineage
    candidates: Candidates
    is_true: Mask
    true: pd.DataFrame  # the reference's edges in the panel, with their signs if it has any
    reference: Reference

    @property
    def k(self) -> int:
        """Number of true edges."""
        return int(self.is_true.sum())

    @cached_property
    def signs(self) -> Signs | None:
        """The sign of every candidate in the reference, 0 where it has none; None if the reference has no signs."""
        return self.candidates.place(self.true, self.true["sign"].to_numpy()) if "sign" in self.true else None

    def network(self, edges: EdgeList, place: str = "the edge list") -> dict[str, float]:
        """The measures and the share of candidates listed; sign agreement, if both have signs.

        Raises:
            EvaluationError: all candidates are true, or the list has fewer of them than k.
        """
        _refuse_unscorable(edges, self.candidates, self.is_true, self.reference, place)
        weights = self.candidates.place(edges.table, edges.table["weight"].to_numpy())
        measured = self.lineage.measure(np.abs(weights), self.is_true, self.signs)
        measured["covered"] = self.candidates.count(edges.table) / len(self.is_true)
        if edges.signed and self.signs is not None:
            found = self.lineage.top(np.abs(weights), self.k) & (self.signs != 0)
            agree = np.sign(weights) == self.signs
            measured["sign agreement"] = float(np.mean(agree, where=found)) if found.any() else math.nan
        return measured

    def scores(self, matrix: pd.DataFrame) -> dict[str, float]:
        """The measures of scores [regulators, targets] of at least the candidates' genes."""
        score = matrix.loc[self.candidates.regulators, self.candidates.genes].to_numpy()[self.candidates.allowed]
        return self.lineage.measure(score, self.is_true, self.signs)

    def chance(self, seed: int) -> dict[str, float]:
        """The mean of `RANDOM_DRAWS` uniform rankings of the candidates."""
        draws = [random_scores(len(self.is_true), seed, draw) for draw in range(RANDOM_DRAWS)]
        measured = [self.lineage.measure(draw, self.is_true, self.signs) for draw in draws]
        return {measure: float(np.mean([one[measure] for one in measured])) for measure in measured[0]}


def comparisons(
    reference: Reference, panel: set[str], all_pairs: bool = False, tf_edges: bool = False
) -> list[Comparison]:
    """What `evaluate` compares a network over these genes with, first by DAZZLE's definitions, then by BEELINE's.

    Args:
        reference: the network to compare with.
        panel: the genes that the network is over.
        all_pairs: BEELINE's candidates are all ordered pairs of reference genes, also where it names regulators.
        tf_edges: they are the pairs whose first gene is the first of a reference edge, also where it names none.

    Raises:
        EvaluationError: no reference edge is left in the panel.
    """
    true = within(panel, reference)
    return [
        Comparison(lineage, candidates, candidates.place(true, np.ones(len(true), dtype=bool)), true, reference)
        for lineage, candidates in _definitions(reference, true, panel, all_pairs, tf_edges)
    ]


def panel_of(edges: EdgeList) -> set[str]:
    """The genes a network is over: its panel and any other regulators, or the genes it names where that is unknown."""
    return set(edges.genes) | set(edges.table["regulator"]) if edges.genes else names_in(edges.table)


def evaluate(
    edges: EdgeList,
    reference: Reference,
    expression: Expression | None,
    all_pairs: bool,
    seed: int,
    place: str = "the edge list",
    tf_edges: bool = False,
) -> Scores:
    """Score `edges`, chance and (with `expression`) absolute correlation in every definition.

    The panel is the genes of `expression`, else `edges.genes` and any other regulators of the edge list (perturbed
    genes that were not measured), else the genes named in the edge list. Reference edges with a gene outside it are
    dropped and counted. Candidates:

    - DAZZLE: TF x ALL, with TF the first genes and ALL all genes of the reference as given, both in the panel.
    - BEELINE: the same of the reference edges left in the panel (its `tf_edges`) where the reference names regulators,
      or with `tf_edges`; with `all_pairs`, or where it does not, all ordered pairs of their genes. Pairs with other
      genes are no candidates; the all-pairs EPR of BEELINE's code v1.1.0 lets a network lose by them.

    Chance is the mean of `RANDOM_DRAWS` uniform rankings of the candidates. Messages call the edge list `place`.

    Raises:
        EvaluationError: edges and reference share no gene, no reference edge is left in the panel, all candidates are
            true, or the list has fewer candidates than k.
    """
    refuse_foreign_genes(edges, reference, place)
    panel = set(expression.genes) if expression else panel_of(edges)
    compared = comparisons(reference, panel, all_pairs, tf_edges)
    correlation = correlation_among(expression, names_in(reference.table)) if expression else None
    rows = []
    for one in compared:
        scores = {"network": one.network(edges, place), "random": one.chance(seed)}
        if correlation is not None:
            scores["absolute correlation"] = one.scores(correlation)
        sizes = {"k": one.k, "candidates": len(one.is_true)}
        for method, measured in scores.items():
            where = {"method": method, "lineage": one.lineage.name, "universe": one.candidates.universe}
            rows.append({**where, **sizes, "covered": 1.0, **measured})
    return Scores(pd.DataFrame(rows), counted(edges, reference, len(compared[0].true), len(panel), seed))


def _definitions(
    reference: Reference, true: pd.DataFrame, panel: set[str], all_pairs: bool, tf_edges: bool
) -> list[tuple[Lineage, Candidates]]:
    given, names = reference.table, names_in(true)
    dazzle = candidates_of(panel & set(given["regulator"]), panel & names_in(given), "TF x genes")
    if tf_edges or (reference.names_regulators and not all_pairs):
        return [(DAZZLE, dazzle), (BEELINE, candidates_of(true["regulator"], names, "TF x genes"))]
    return [(DAZZLE, dazzle), (BEELINE, candidates_of(names, names, "all pairs"))]


def correlation_among(expression: Expression, names: set[str]) -> pd.DataFrame:
    """Absolute correlation among those of `names` that the expression has."""
    columns = [column for column, gene in enumerate(expression.genes) if gene in names]
    genes = [expression.genes[column] for column in columns]
    matrix = absolute_correlation(block[:, columns] for block in expression.blocks())
    return pd.DataFrame(matrix, index=genes, columns=genes)


def within(panel: set[str], reference: Reference) -> pd.DataFrame:
    """The reference edges with both genes in the panel.

    Raises:
        EvaluationError: there is none.
    """
    table = reference.table
    true = table[table["regulator"].isin(panel) & table["target"].isin(panel)]
    if true.empty:
        raise EvaluationError(
            f"{reference.path}: none of its {len(reference)} edges has both genes among the {len(panel)} genes of the "
            f"panel ({some(sorted(panel))}); use a reference for these genes"
        )
    return true


def refuse_foreign_genes(edges: EdgeList, reference: Reference, place: str) -> None:
    """Raise if network and reference have no gene in common."""
    ours, theirs = names_in(edges.table), names_in(reference.table)
    if ours.isdisjoint(theirs):
        raise EvaluationError(
            f"{reference.path} shares no gene with {place}: it names {some(sorted(theirs))}, the edge list "
            f"{some(sorted(ours))}; use the same identifiers (symbols or Ensembl, same case) in both"
        )


def _refuse_unscorable(
    edges: EdgeList, candidates: Candidates, is_true: Mask, reference: Reference, place: str
) -> None:
    k, listed = int(is_true.sum()), candidates.count(edges.table)
    if is_true.all():
        raise EvaluationError(
            f"{reference.path} is complete: all {k} candidate edges ({candidates.universe}) are true, so every ranking "
            "scores the same; use a reference that leaves some pairs out"
        )
    if listed < k:
        raise EvaluationError(
            f"{place} has {listed} of the {len(is_true)} candidate edges ({candidates.universe}), but {k} are "
            f"true in {reference.path} and its top {k} are needed; list more edges (grndist infer RUN --all), or "
            "score the strongest alone (--measures top)"
        )


def counted(edges: EdgeList, reference: Reference, used: int, panel_genes: int, seed: int) -> Counts:
    """What is compared, if `used` edges of the reference are between genes of the panel."""
    return Counts(
        reference=str(reference.path),
        reference_edges=len(reference),
        dropped_self=reference.dropped_self,
        dropped_duplicates=reference.dropped_duplicates,
        outside_panel=len(reference) - used,
        panel_genes=panel_genes,
        listed_edges=len(edges),
        random_draws=RANDOM_DRAWS,
        seed=seed,
    )


def names_in(table: pd.DataFrame) -> set[str]:
    """The genes of the columns regulator and target."""
    return set(table["regulator"]) | set(table["target"])
