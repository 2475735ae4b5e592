"""Networks against interventions: does a target differ between control cells and cells perturbed for its regulator?

CausalBench's statistics (Chevalley et al. 2022, arXiv:2210.17283): the rank-sum test and the Wasserstein distance of
every edge, without correction for the number of edges. Networks are compared at one number of edges K: the mean
Wasserstein distance of any sensible network falls with every edge more.
"""

from grndist.evaluation.interventional.at_k import mean_wasserstein, rank_sum_precision
from grndist.evaluation.interventional.atlas import Atlas, EffectsConfig, effects_of, open_atlas
from grndist.evaluation.interventional.atlas_writing import refuse_atlas, write_atlas
from grndist.evaluation.interventional.causalbench import Evaluation, evaluate_network
from grndist.evaluation.interventional.cells import InterventionError, perturbed_genes
from grndist.evaluation.interventional.curves import KS, at, band, curve
from grndist.evaluation.interventional.edges import score_by, score_edges
from grndist.evaluation.interventional.effects import CellEffects, Effects
from grndist.evaluation.interventional.omission import Omission, OmissionConfig, omissions
from grndist.evaluation.interventional.paths import Paths, deepening, paths
from grndist.evaluation.interventional.together import Curves, curves_of

__all__ = [
    "KS",
    "Atlas",
    "CellEffects",
    "Curves",
    "Effects",
    "EffectsConfig",
    "Evaluation",
    "InterventionError",
    "Omission",
    "OmissionConfig",
    "Paths",
    "at",
    "band",
    "curve",
    "curves_of",
    "deepening",
    "effects_of",
    "evaluate_network",
    "mean_wasserstein",
    "omissions",
    "open_atlas",
    "paths",
    "perturbed_genes",
    "rank_sum_precision",
    "refuse_atlas",
    "score_by",
    "score_edges",
    "write_atlas",
]
