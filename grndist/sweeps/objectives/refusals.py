"""What a sweep cannot be judged by, said before it starts."""

import logging
from collections.abc import Sequence

from grndist import models
from grndist.data.perturbations import perturbations_of
from grndist.data.selection import select
from grndist.data.store import open_store
from grndist.data.view import View
from grndist.evaluation.interventional import perturbed_genes
from grndist.genes import NON_TARGETING
from grndist.models.catran_d import CaTranDConfig
from grndist.runs import RunConfig
from grndist.runs.learning import resolved
from grndist.sweeps.objectives.config import (
    AnyObjective,
    HeldOutConfig,
    ReconstructionConfig,
    ReferenceConfig,
    StabilityConfig,
)
from grndist.sweeps.objectives.held_out import HeldOut, ObjectiveError, refuse_leak
from grndist.sweeps.objectives.measure import comparison_with

FEW_CELLS = 20  # of a perturbed gene; about what the test part of CausalBench has at least

logger = logging.getLogger(__name__)


def refuse_unfit(objectives: Sequence[AnyObjective], config: RunConfig, replicates: int) -> None:
    """Raise unless every objective can be measured on trials of this run; opens its store, and trains nothing.

    Warns where most held-out groups are so small that what is measured on them is mostly noise.

    Raises:
        UserError: the first objective that cannot, why, and what to change.
    """
    names = [objective.name for objective in objectives]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ObjectiveError(f"there are {names.count(twice)} objectives {twice}; leave all but one of them out")
    for objective in objectives:
        _refuse_settings(objective, config, replicates)
    view = select(open_store(config.store), config)
    for objective in objectives:
        _refuse_data(objective, config, view)


def _refuse_settings(objective: AnyObjective, config: RunConfig, replicates: int) -> None:
    if isinstance(objective, StabilityConfig) and replicates < 2:
        raise ObjectiveError(
            f"objective {objective.name} compares the replicates of a trial, and replicates={replicates}; set "
            "replicates=2 or more"
        )
    if isinstance(objective, ReconstructionConfig) and config.training.validation is None:
        raise ObjectiveError(
            f"objective {objective.name} is the loss on held-out cells, and the run holds none out; set "
            "training.validation in it, e.g. to 0.1"
        )
    if isinstance(objective, HeldOutConfig):
        refuse_leak(objective, config)


def _refuse_data(objective: AnyObjective, config: RunConfig, view: View) -> None:
    if isinstance(objective, ReferenceConfig):
        _refuse_complete(objective, view)
    elif isinstance(objective, StabilityConfig):
        possible = n_edges(config, view, regulators_of(config, view))
        _refuse_few(objective.name, objective.k, possible, f"a network of {view.n_genes:,} genes has")
    elif isinstance(objective, HeldOutConfig):
        _refuse_untestable(objective, config)
    else:
        resolved(config, view)  # what learns from moments has no held-out cells, and says so


def _refuse_complete(objective: ReferenceConfig, view: View) -> None:
    comparison = comparison_with(objective, set(view.panel.names))
    if comparison.is_true.all():
        raise ObjectiveError(
            f"objective {objective.name}: {objective.file} is complete, all {comparison.k:,} candidate edges are true, "
            "so every network scores the same; use a reference that leaves some pairs out"
        )


def _refuse_untestable(objective: HeldOutConfig, config: RunConfig) -> None:
    view = HeldOut().cells(objective, config)
    if not (view.obs["perturbation"] == NON_TARGETING).any():
        raise ObjectiveError(
            f"objective {objective.name}: none of the {view.n_cells:,} cells of the {objective.split} split of "
            f"{view.place} is a control ({NON_TARGETING!r}), so there is nothing to compare perturbed cells with; "
            "name the controls at ingest (--control), or take another objective"
        )
    testable = regulators_of(config, view) & set(perturbed_genes(view))
    cells = f"the {view.n_cells:,} cells of the {objective.split} split"
    what = f"{len(testable):,} regulators are perturbed in {cells}, which with {view.n_genes:,} genes makes"
    _refuse_few(objective.name, objective.k, n_edges(config, view, testable), what)
    sizes = view.obs["perturbation"].astype(str).value_counts()
    middle = float(sizes[sizes.index.isin(testable)].median())
    if middle < FEW_CELLS:
        logger.warning(
            "objective %s: half of the regulators perturbed in %s have %g cells there or fewer. In so few, distances "
            "are large without any effect, the larger the more a target varies, and tests find little: give more cells "
            "to that split (grndist ingest --split 0.6,0.4,0), and prefer rank_sum_precision to wasserstein",
            objective.name, cells, middle,
        )  # fmt: skip


def _refuse_few(name: str, k: int, possible: int, what: str) -> None:
    if k > possible:
        raise ObjectiveError(
            f"objective {name}: {what} {possible:,} edges at most; set k to fewer, a small part of them, or every "
            "network scores much the same"
        )


def regulators_of(config: RunConfig, view: View) -> set[str]:
    """Genes that may be regulators in networks of this run, measured or not."""
    known = view.panel.regulators
    if known is not None:
        return set(known)
    outside = isinstance(config.model, CaTranDConfig) and config.model.unmeasured
    return {*view.panel.names, *(perturbations_of(view).unmeasured if outside else ())}


def n_edges(config: RunConfig, view: View, regulators: set[str]) -> int:
    """How many edges a network of this run can have that begin at these genes."""
    inside = len(regulators.intersection(view.panel.names))
    repeated = inside * (inside - 1) // 2 if models.is_undirected(config.model) else 0
    return len(regulators) * view.n_genes - inside - repeated
