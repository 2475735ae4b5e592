"""Networks compared at the same numbers of edges K: a curve of each measure, and a band over seeds.

A network's mean Wasserstein distance falls with every edge more, so numbers of networks of unlike size say little
(shown on CausalBench's data by GAT-GPO-VAE's authors). `K` edges are the first K testable ones of the ranking.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from grndist.data.normalise import ExpressionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.cells import InterventionError
from grndist.evaluation.interventional.edges import without_self_edges
from grndist.evaluation.interventional.effects import CellEffects, Effects, testable
from grndist.evaluation.interventional.omission import OmissionConfig, omissions
from grndist.evaluation.interventional.paths import paths
from grndist.networks.edges import EdgeList

KS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
K = 1_000  # at which one number is given: the CausalBench challenge's least number of edges
ALPHA = 0.05
MEASURES = ["mean_wasserstein", "rank_sum_precision", "false_omission_rate"]


def curve(
    source: View | Effects,
    edges: EdgeList,
    ks: Iterable[int] = KS,
    expression: ExpressionConfig | None = None,
    omission: OmissionConfig | None = None,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Every measure of the first K testable edges, a row for each K; self-edges are dropped.

    - K: edges compared.
    - mean_wasserstein: in the units of the expression; more is better.
    - rank_sum_precision: share of them with p < alpha, without correction; more is better.
    - false_omission_rate: share of the pairs without a path along them that have p < alpha all the same; less is
      better.
    - untestable: edges that stand before the Kth testable one, but whose regulator is never perturbed or whose target
      is not measured.
    - omitted_pairs: pairs the rate is of. left_out: testable pairs without a path, of which they are drawn.
    - reason: why a measure is NaN, "" where none is: too few testable edges for this K, or no pair left out.

    Args:
        source: the cells, an atlas, or other effects.
        edges: the network, best edge first.
        ks: numbers of edges, in any order; rows ascend.
        expression: of a view, which values are compared, before any z-score; None: the log scale.
        omission: which pairs are left out and how many of them are looked at; None: 500 drawn as the benchmark does.
        alpha: p below which there is an effect.

    Raises:
        InterventionError: a view has no control cells, or all pairs are wanted of a view.
    """
    config = omission or OmissionConfig()
    effects = CellEffects(source, expression or ExpressionConfig()) if isinstance(source, View) else source
    table = without_self_edges(edges)
    known = testable(effects, table)
    wanted = np.unique(np.asarray(list(ks), dtype=np.int64))
    reached = [int(k) for k in wanted if 0 < k <= known.sum()]
    first = table[known].head(max(reached, default=0))
    tested = effects.test(first) if reached else pd.DataFrame({"p": [], "wasserstein": []})
    left = omissions(
        effects, [paths(first[:k], config.max_path_length, config.lengths) for k in reached], config, alpha
    )
    rows = [_beyond(int(k), known) for k in wanted if k not in reached]
    for k, omitted in zip(reached, left, strict=True):
        rows.append({
            "K": k,
            "mean_wasserstein": float(tested["wasserstein"].iloc[:k].mean()),
            "rank_sum_precision": float((tested["p"].iloc[:k] < alpha).mean()),
            "false_omission_rate": omitted.rate,
            "untestable": _untestable(known, k),
            "omitted_pairs": omitted.pairs,
            "left_out": omitted.left_out,
            "reason": omitted.reason,
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values("K", ignore_index=True)


def at(table: pd.DataFrame, k: int = K) -> pd.Series:
    """The row of a `curve`, or of a `band`, at one K: no single number is given without it.

    Raises:
        InterventionError: the curve does not have this K, or the network has fewer testable edges.
    """
    row = table[table["K"] == k]
    if row.empty:
        raise InterventionError(f"the curve was not made at {k:,} edges, but at {list(table['K'])}")
    if row["mean_wasserstein"].isna().all():
        reason = row["reason"].iloc[0] if "reason" in row else "no seed's network has so many testable edges"
        raise InterventionError(f"no measure at {k:,} edges: {reason}; list more edges, or compare at fewer")
    return row.iloc[0]


def band(curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation (n - 1; 0 of one seed) of every measure at each K, over curves that reach it.

    Columns K, seeds, and of each of `MEASURES` its mean under its own name and its deviation under NAME_sd; NaN where
    no curve has it.
    """
    together = pd.concat(curves, ignore_index=True).groupby("K")
    found = {"seeds": together["mean_wasserstein"].count()}
    for measure in MEASURES:
        mean = together[measure].mean()
        found[measure] = mean
        found[f"{measure}_sd"] = together[measure].std().where(together[measure].count() > 1, 0.0 * mean)
    return pd.DataFrame(found).reset_index()


def _beyond(k: int, known: Bool[np.ndarray, " edges"]) -> dict[str, float | int | str]:
    """The row of a K that the network does not reach."""
    number = int(known.sum())
    reason = f"only {number:,} of the network's {len(known):,} edges are testable"
    return {
        "K": k, **dict.fromkeys(MEASURES, np.nan), "untestable": len(known) - number, "omitted_pairs": 0, "left_out": 0,
        "reason": "K is 0" if k < 1 else "the network has no edge" if len(known) == 0 else reason,
    }  # fmt: skip


def _untestable(known: Bool[np.ndarray, " edges"], k: int) -> int:
    """Edges before the kth testable one that are not."""
    return int(np.flatnonzero(known)[k - 1]) + 1 - k
