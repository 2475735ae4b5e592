"""The edges of a network, each with what the cells perturbed for its regulator say of its target."""

import numpy as np
import pandas as pd
from jaxtyping import Bool

from grndist.data.normalise import ExpressionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.cells import MEMORY, InterventionError
from grndist.evaluation.interventional.effects import CellEffects, Effects, testable
from grndist.genes import some
from grndist.networks.edges import EdgeList


def score_edges(
    view: View,
    edges: EdgeList,
    expression: ExpressionConfig | None = None,
    k: int | None = None,
    memory: int = MEMORY,
) -> pd.DataFrame:
    """Test every edge: its target in control cells against the cells in which its regulator alone is perturbed.

    In the order of `edges`, self-edges dropped, with the columns regulator, target, weight and

    - n: perturbed cells; 0 marks an edge that is untestable, its regulator never perturbed among these cells or its
      target not measured, and has NaN for the others,
    - p: `scipy.stats.mannwhitneyu` with its defaults (two-sided, corrected for continuity and ties; exact for 8 cells
      or fewer without ties), not corrected for the number of edges,
    - wasserstein: `scipy.stats.wasserstein_distance`, in the units of the expression.

    Both are computed in float64 from float32 expression and equal SciPy's to rounding.

    Args:
        view: the cells, e.g. those held out from training.
        edges: the network, best edge first.
        expression: which values are compared, before any z-score; None: the log scale.
        k: stop after the first k testable edges; edges after them are left out.
        memory: bytes of values held at a time; fewer mean more passes over the cells.

    Raises:
        InterventionError: no edge is testable, or there are no control cells.
    """
    return score_by(CellEffects(view, expression or ExpressionConfig(), memory), edges, k)


def score_by(effects: Effects, edges: EdgeList, k: int | None = None) -> pd.DataFrame:
    """The table of `score_edges` by effects that are known already (an `Atlas`), or are computed (`CellEffects`).

    Raises:
        InterventionError: no edge is testable, or there are no control cells.
    """
    table = without_self_edges(edges)
    known = testable(effects, table)
    _refuse_untestable(effects, table, known)
    if k is not None:
        wanted = int(np.searchsorted(np.cumsum(known), k)) + 1
        table, known = table[:wanted], known[:wanted]
    found = pd.DataFrame({"n": 0, "p": np.nan, "wasserstein": np.nan}, index=table.index)
    found.loc[known] = effects.test(table[known])
    return pd.concat([table, found], axis=1)


def without_self_edges(edges: EdgeList) -> pd.DataFrame:
    """The table of a network without edges from a gene to itself, which would only show that it was perturbed."""
    return edges.table[edges.table["regulator"] != edges.table["target"]].reset_index(drop=True)


def _refuse_untestable(effects: Effects, table: pd.DataFrame, known: Bool[np.ndarray, " edges"]) -> None:
    if known.any():
        return
    if table.empty:
        raise InterventionError("the network has no edge between two different genes, so there is nothing to test")
    raise InterventionError(
        f"{effects.place}: none of the {len(table):,} edges is testable: their regulators "
        f"({some(list(table['regulator'].unique()))}) are not among what is perturbed in these {effects.n_cells:,} "
        f"cells ({some(list(effects.regulators))}), or their targets are not measured; use cells in which regulators "
        "are perturbed"
    )
