"""The edges of a network, each with what the cells perturbed for its regulator say of its target."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64
from scipy.stats import mannwhitneyu

from grndist.data.normalise import ExpressionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.cells import MEMORY, Groups, InterventionError, groups_of
from grndist.evaluation.interventional.kernels import compare_pairs
from grndist.evaluation.interventional.rank_sum import asymptotic_p, needs_exact_test
from grndist.genes import some
from grndist.networks.edges import EdgeList

Positions = Int64[np.ndarray, " edges"]


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
    table = edges.table[edges.table["regulator"] != edges.table["target"]].reset_index(drop=True)
    groups = groups_of(view, table["regulator"].unique())
    group = groups.regulators.get_indexer(table["regulator"])
    target = pd.Index(view.panel.names, dtype=object).get_indexer(table["target"])
    testable = (group >= 0) & (target >= 0)
    _refuse_untestable(view, table, testable)
    if k is not None:
        wanted = int(np.searchsorted(np.cumsum(testable), k)) + 1
        table, group, target, testable = table[:wanted], group[:wanted], target[:wanted], testable[:wanted]
    config = ExpressionConfig() if expression is None else expression
    tested = _tested(groups, group[testable], target[testable], config, memory)
    found = pd.DataFrame({"n": 0, "p": np.nan, "wasserstein": np.nan}, index=table.index)
    found.loc[testable, "n"] = groups.sizes[group[testable]]
    found.loc[testable, ["p", "wasserstein"]] = tested
    return pd.concat([table, found], axis=1)


def _refuse_untestable(view: View, table: pd.DataFrame, testable: Bool[np.ndarray, " edges"]) -> None:
    if testable.any():
        return
    if table.empty:
        raise InterventionError("the network has no edge between two different genes, so there is nothing to test")
    labels = [view.label_names[code] for code in np.unique(view.label_of_cell).tolist()]
    raise InterventionError(
        f"{view.place}: none of the {len(table):,} edges is testable: their regulators "
        f"({some(list(table['regulator'].unique()))}) are not among what is perturbed in these {view.n_cells:,} cells "
        f"({some(labels)}), or their targets are not measured; use cells in which regulators are perturbed"
    )


def _tested(groups: Groups, group: Positions, target: Positions, config: ExpressionConfig, memory: int) -> np.ndarray:
    """P and distance of every testable edge [edges, 2], given by its group and its target's column of the panel."""
    genes, row = np.unique(target, return_inverse=True)
    order = np.argsort(row, kind="stable")  # edges of one target together
    places = np.searchsorted(row[order], np.arange(len(genes) + 1))
    results = np.empty((len(target), 2))
    for part, values in groups.blocks(genes, config, memory):
        own = order[places[part.start] : places[part.stop]]
        results[own] = _compared(groups, values, group[own], row[own] - part.start)
    return results


def _compared(
    groups: Groups, values: Float32[np.ndarray, "targets cells"], group: Positions, row: Positions
) -> np.ndarray:
    start, stop = groups.bounds[group], groups.bounds[group + 1]
    compared = np.empty((len(group), 3))
    compare_pairs(values, groups.n_controls, row, start, stop, compared)
    wins, ties, distance = compared.T
    p = asymptotic_p(wins, ties, stop - start, groups.n_controls)
    for at in np.flatnonzero(needs_exact_test(groups.n_controls, stop - start, ties)):
        own = values[row[at]].astype(np.float64)
        p[at] = mannwhitneyu(own[: groups.n_controls], own[start[at] : stop[at]], method="exact").pvalue
    return np.stack([p, distance], axis=1)
