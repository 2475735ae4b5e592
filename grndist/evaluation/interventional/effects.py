"""What perturbing one gene does to another, by whoever knows: cells that are compared now, or an atlas of all pairs."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.stats import mannwhitneyu

from grndist.data.normalise import ExpressionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.cells import MEMORY, Groups, groups_of, perturbed_genes
from grndist.evaluation.interventional.kernels import compare_pairs
from grndist.evaluation.interventional.rank_sum import asymptotic_p, needs_exact_test
from grndist.genes import NON_TARGETING

Positions = Int64[np.ndarray, " edges"]


@runtime_checkable
class Effects(Protocol):
    """Tests of pairs (regulator, target): the target in control cells against cells perturbed for the regulator."""

    @property
    def place(self) -> str:
        """The store or the atlas, for messages."""

    @property
    def n_cells(self) -> int:
        """Cells the tests are of, whatever they are perturbed for."""

    @property
    def regulators(self) -> pd.Index:
        """What is perturbed in some cells."""

    @property
    def targets(self) -> pd.Index:
        """Genes that are measured, in the order of the panel."""

    @property
    def genes(self) -> tuple[str, ...]:
        """The panel and, after it, perturbed genes that were not measured."""

    def test(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Columns n, p and wasserstein of testable pairs (regulator, target), in their order; see `score_edges`."""


@dataclass(frozen=True, eq=False)
class CellEffects:
    """Effects that are computed from the cells of a view when they are asked for."""

    view: View
    expression: ExpressionConfig = field(default_factory=ExpressionConfig)  # before any z-score
    memory: int = MEMORY  # bytes of values held at a time; fewer mean more passes over the cells

    @property
    def place(self) -> str:
        """The store."""
        return self.view.place

    @property
    def n_cells(self) -> int:
        """All cells of the view."""
        return self.view.n_cells

    @cached_property
    def regulators(self) -> pd.Index:
        """Every label but the controls', genes or not."""
        names = [self.view.label_names[code] for code in np.unique(self.view.label_of_cell).tolist()]
        return pd.Index([name for name in names if name != NON_TARGETING], dtype=object)

    @cached_property
    def targets(self) -> pd.Index:
        """The panel of the view."""
        return pd.Index(self.view.panel.names, dtype=object)

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """The panel and, after it, perturbed genes that were not measured."""
        names = self.view.panel.names
        return (*names, *(gene for gene in perturbed_genes(self.view) if gene not in self.view.panel.index))

    def test(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Columns n, p and wasserstein of testable pairs, in their order.

        Raises:
            InterventionError: there are no control cells.
        """
        groups = groups_of(self.view, pairs["regulator"].unique())
        group = groups.regulators.get_indexer(pairs["regulator"])
        target = self.targets.get_indexer(pairs["target"])
        tested = _tested(groups, group, target, self.expression, self.memory)
        return pd.DataFrame({"n": groups.sizes[group], "p": tested[:, 0], "wasserstein": tested[:, 1]}, pairs.index)


def testable(effects: Effects, pairs: pd.DataFrame) -> Bool[np.ndarray, " pairs"]:
    """Whether the regulator of each pair is perturbed and its target, another gene, measured."""
    known = pairs["regulator"].isin(effects.regulators) & pairs["target"].isin(effects.targets)
    return (known & (pairs["regulator"] != pairs["target"])).to_numpy(dtype=bool)


def _compared(
    groups: Groups, values: Float32[np.ndarray, "targets cells"], group: Positions, row: Positions
) -> np.ndarray:
    """P and distance [pairs, 2] of pairs given by their group and their row of `values`; rows ascend."""
    start, stop = groups.bounds[group], groups.bounds[group + 1]
    found = np.empty((len(group), 3))
    compare_pairs(values, groups.n_controls, row, start, stop, found)
    return np.stack([p_values(groups, values, group, row, found), found[:, 2]], axis=1)


def p_values(
    groups: Groups,
    values: Float32[np.ndarray, "targets cells"],
    group: Positions,
    row: Positions,
    found: Float64[np.ndarray, "pairs measures"],
) -> Float64[np.ndarray, " pairs"]:
    """P of pairs of which `found` has U and the tie term, by the test that SciPy takes."""
    n, (wins, ties) = groups.sizes[group], found[:, :2].T
    p = asymptotic_p(wins, ties, n, groups.n_controls)
    for at in np.flatnonzero(needs_exact_test(groups.n_controls, n, ties)):
        own = values[row[at]].astype(np.float64)
        perturbed = own[groups.bounds[group[at]] : groups.bounds[group[at] + 1]]
        p[at] = mannwhitneyu(own[: groups.n_controls], perturbed, method="exact").pvalue
    return p


def _tested(groups: Groups, group: Positions, target: Positions, config: ExpressionConfig, memory: int) -> np.ndarray:
    """P and distance of every pair [pairs, 2], given by its group and its target's column of the panel."""
    genes, row = np.unique(target, return_inverse=True)
    order = np.argsort(row, kind="stable")  # pairs of one target together
    places = np.searchsorted(row[order], np.arange(len(genes) + 1))
    results = np.empty((len(target), 2))
    for part, values in groups.blocks(genes, config, memory):
        own = order[places[part.start] : places[part.stop]]
        results[own] = _compared(groups, values, group[own], row[own] - part.start)
    return results
