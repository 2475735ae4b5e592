"""The objectives of trained runs: of every replicate its network, asked once for what the objectives have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import pandas as pd

from grndist.config import validate
from grndist.evaluation.evaluate import BEELINE, DAZZLE, Comparison, comparisons, panel_of
from grndist.evaluation.interventional import mean_wasserstein, perturbed_genes, rank_sum_precision, score_edges
from grndist.evaluation.references import Reference, read_reference
from grndist.inference import checkpoint_of_run, network_of, strongest_edges
from grndist.inference.network import Network
from grndist.networks.edges import EdgeList
from grndist.networks.stability import agreement_with_others
from grndist.runs import RunConfig
from grndist.sweeps.objectives.config import (
    MEASURES,
    AnyObjective,
    HeldOutConfig,
    RankSumConfig,
    ReconstructionConfig,
    ReferenceConfig,
    StabilityConfig,
    WassersteinConfig,
)
from grndist.sweeps.objectives.held_out import HeldOut, ObjectiveError
from grndist.training import checkpoint


def measured(objectives: Sequence[AnyObjective], runs: Sequence[str]) -> dict[str, list[float]]:
    """Of every objective, by its name, a value for each run: the newest checkpoint of its run directory.

    The runs are replicates, which differ in their seed; a value of `stability` is a replicate's mean agreement with the
    others. One network is held at a time. What is kept of it are the edges that the objectives need.

    Raises:
        UserError: a run has no checkpoint, or an objective cannot be measured on it.
    """
    values: dict[str, list[float]] = {objective.name: [] for objective in objectives}
    stable = [objective for objective in objectives if isinstance(objective, StabilityConfig)]
    single = [objective for objective in objectives if not isinstance(objective, StabilityConfig)]
    held_out, tops = HeldOut(), []
    for run in runs:
        with checkpoint_of_run(run) as folder:
            trained = _Trained(run, folder, held_out, single)
            for objective in single:
                values[objective.name].append(trained.value(objective))
            if stable:
                largest = max(objective.k for objective in stable)
                tops.append(strongest_edges(trained.network, largest, with_ties=True))
    return values | {objective.name: agreement_with_others(tops, objective.k) for objective in stable}


@dataclass(eq=False)
class _Trained:
    """One replicate."""

    run: str
    folder: Path  # of the checkpoint
    held_out: HeldOut
    objectives: Sequence[AnyObjective]  # all that are measured on it
    _tested: dict[str, pd.DataFrame] = field(default_factory=dict)  # by split
    _listed: dict[Path, EdgeList] = field(default_factory=dict)  # by reference

    @cached_property
    def about(self) -> checkpoint.Description:
        """What the checkpoint says of itself."""
        return checkpoint.describe(self.folder)

    @cached_property
    def config(self) -> RunConfig:
        """The run's settings."""
        return validate(RunConfig, self.about.config, self.folder / "checkpoint.json")

    @cached_property
    def network(self) -> Network:
        """All of it."""
        return network_of(self.folder)

    def value(self, objective: AnyObjective) -> float:
        """One objective that needs no other replicates."""
        if isinstance(objective, ReferenceConfig):
            return self._against(objective)
        if isinstance(objective, WassersteinConfig):
            return mean_wasserstein(self._edges_tested(objective), objective.k)
        if isinstance(objective, RankSumConfig):
            return rank_sum_precision(self._edges_tested(objective), objective.k, objective.alpha)
        if isinstance(objective, ReconstructionConfig):
            return self._reconstruction()
        raise TypeError(f"{objective.name} is of several runs")

    def _against(self, objective: ReferenceConfig) -> float:
        edges = self._edges_among(reference_of(objective.file))
        comparison = comparison_with(objective, panel_of(edges))
        return comparison.network(edges, self.run)[MEASURES[objective.measure]]

    def _edges_among(self, reference: Reference) -> EdgeList:
        """Every edge between genes of the reference: others are no candidates."""
        if reference.path not in self._listed:
            genes = {*reference.table["regulator"], *reference.table["target"]}
            self._listed[reference.path] = strongest_edges(self.network.limited(genes, genes))
        return self._listed[reference.path]

    def _edges_tested(self, objective: HeldOutConfig) -> pd.DataFrame:
        """The strongest edges that can be tested, as many as any objective of this split needs."""
        if objective.split not in self._tested:
            alike = [
                other.k
                for other in self.objectives
                if isinstance(other, HeldOutConfig) and other.split == objective.split
            ]
            view = self.held_out.cells(objective, self.config)
            testable = self.network.limited(perturbed_genes(view), view.panel.names)
            self._tested[objective.split] = score_edges(view, strongest_edges(testable, max(alike)))
        return self._tested[objective.split]

    def _reconstruction(self) -> float:
        if not self.about.looks:
            raise ObjectiveError(
                f"{self.run}: it has not looked at held-out cells, so there is no loss on them; train it with "
                "training.validation, e.g. 0.1"
            )
        return self.about.looks[-1].loss


def comparison_with(objective: ReferenceConfig, panel: set[str]) -> Comparison:
    """What the objective compares a network over these genes with.

    Raises:
        UserError: the reference cannot be read, or has no edge among these genes.
    """
    lineage = {"dazzle": DAZZLE, "beeline": BEELINE}[objective.lineage]
    both = comparisons(reference_of(objective.file), panel, objective.all_pairs)
    return next(one for one in both if one.lineage is lineage)


@lru_cache(maxsize=4)
def reference_of(file: Path) -> Reference:
    """A reference network, read once by each process."""
    return read_reference(file)
