"""CausalBench's statistical evaluation of a network, number for number, and guarded where the published one breaks.

`Evaluator.evaluate_network` of the package causalbench 1.1.2 (`causalscbench/evaluation/statistical_evaluation.py`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypedDict

import numpy as np
import pandas as pd

from grndist.evaluation.interventional.edges import without_self_edges
from grndist.evaluation.interventional.effects import Effects, testable
from grndist.evaluation.interventional.omission import OmissionConfig, omissions
from grndist.evaluation.interventional.paths import Lengths, Paths, deepening
from grndist.networks.edges import EdgeList


class Verdict(TypedDict):
    """Of some pairs: how many have p < alpha and how many have not, and their mean Wasserstein distance."""

    true_positives: int
    false_positives: int
    wasserstein_distance: dict[str, float]


class Evaluation(TypedDict):
    """The benchmark's numbers under its names and, from `untestable` on, ours."""

    output_graph: Verdict
    all_path_results: list[Verdict]  # the pairs that each round of paths adds
    false_omission_rate: float
    negative_mean_wasserstein: float
    untestable: int  # edges whose regulator is never perturbed, or whose target is not measured
    self_edges: int  # dropped
    omitted_pairs: int  # that the rate is of: fewer than asked for where fewer are left out
    reasons: list[str]  # why a number is NaN


def evaluate_network(
    effects: Effects,
    edges: EdgeList,
    max_path_length: int | None = 3,
    omission_pairs: int = 0,
    seed: int = 0,
    genes: Sequence[str] | None = None,
    lengths: Lengths = "causalbench",
    alpha: float = 0.05,
) -> Evaluation:
    """What `Evaluator.evaluate_network` returns for all edges of a network, whatever their weights.

    Where it differs from the published one: edges from a gene to itself are dropped (there they count as true
    positives); edges and pairs of a regulator that is never perturbed are counted, not tested (there a KeyError); an
    empty network has zero positives and a NaN mean with its reason (there without one); of a network that leaves out
    fewer pairs than are to be drawn all are taken, and one that leaves out none has a NaN rate with its reason (there
    drawing never ends). Without pairs to draw the rate and its distance are -1, as there.

    Args:
        effects: the cells, or an atlas.
        edges: the network.
        max_path_length: see `paths`; None: of any length (there -1).
        omission_pairs: pairs without a path to draw for the false omission rate (there `omission_estimation_size`).
        seed: of that draw; the published one always has 0.
        genes: the genes of the benchmark, in the order of its matrix; None: the panel.
        lengths: see `paths`.
        alpha: p below which a pair is a true positive.
    """
    table = without_self_edges(edges)
    known = testable(effects, table)
    steps = list(deepening(table, max_path_length, lengths))
    added = [pairs[testable(effects, pairs)] for pairs in _added(steps)]
    tested = [_tested(effects, pairs) for pairs in (table[known], *added)]
    rate, distance, pairs, reasons = -1.0, -1.0, 0, []
    if len(tested[0]) == 0:
        reasons.append("the mean distance: " + ("the network has no edge" if table.empty else "no edge is testable"))
    if omission_pairs:
        config = OmissionConfig(pairs=omission_pairs, seed=seed)
        found = omissions(effects, [steps[-1]], config, alpha, genes)[0]
        rate, distance, pairs = found.rate, found.wasserstein, found.pairs
        reasons += [f"the false omission rate: {found.reason}"] if found.reason else []
    return {
        "output_graph": _verdict(tested[0], alpha),
        "all_path_results": [_verdict(one, alpha) for one in tested[1:]],
        "false_omission_rate": rate,
        "negative_mean_wasserstein": distance,
        "untestable": int(np.count_nonzero(~known)),
        "self_edges": len(edges) - len(table),
        "omitted_pairs": pairs,
        "reasons": reasons,
    }


def _added(steps: list[Paths]) -> list[pd.DataFrame]:
    """The pairs that each round adds to those of the round before."""
    return [Paths(before.genes, after.words & ~before.words).pairs() for before, after in pairwise(steps)]


def _tested(effects: Effects, pairs: pd.DataFrame) -> pd.DataFrame:
    return effects.test(pairs) if len(pairs) else pd.DataFrame({"p": [], "wasserstein": []}, dtype=np.float64)


def _verdict(tested: pd.DataFrame, alpha: float) -> Verdict:
    hits = int(np.count_nonzero(tested["p"] < alpha))
    mean = float(tested["wasserstein"].mean())  # NaN of none
    return {
        "true_positives": hits,
        "false_positives": len(tested) - hits,
        "wasserstein_distance": {"mean": mean},
    }
