"""A network's scores on a data set: by each reference and both lineages, and on held-out interventions at each K."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from grndist.benchmarks.comparison.config import AnyDataSet
from grndist.benchmarks.comparison.datasets import Prepared
from grndist.data.view import View
from grndist.evaluation.evaluate import comparisons
from grndist.evaluation.interventional import OmissionConfig, curve, open_atlas
from grndist.evaluation.references import read_reference
from grndist.evaluation.scores import EvaluationError
from grndist.networks.edges import EdgeList

INTERVENTIONS = "interventions"  # in the place of a reference
REFERENCE_MEASURES = {"EPR": "epr", "AUPRC": "auprc", "AUPRC ratio": "auprc_ratio", "covered": "covered"}
AT_K = ("mean_wasserstein", "rank_sum_precision")


@dataclass(frozen=True)
class Score:
    """One number, and what it is of; value None for the reason."""

    reference: str
    lineage: str  # "dazzle" or "beeline"; empty for interventions
    universe: str  # which pairs are candidates
    k: int  # true edges, or edges tested
    candidates: int
    measure: str
    value: float | None
    reason: str = ""

    def as_dict(self) -> dict[str, str | int | float | None]:
        """For JSON."""
        return asdict(self)


def scores(data: AnyDataSet, prepared: Prepared, view: View, edges: EdgeList) -> list[Score]:
    """All scores of a network that was made of `view`.

    Raises:
        UserError: a reference or the atlas cannot be read, or shares no edge with the panel.
    """
    found = list(_against_references(data, prepared, view, edges))
    return [*found, *_on_interventions(data, prepared, edges)]


def _against_references(data: AnyDataSet, prepared: Prepared, view: View, edges: EdgeList) -> Iterator[Score]:
    for name, file in prepared.references.items():
        for one in comparisons(read_reference(file), set(view.panel.names), data.all_pairs):
            lineage, reason = one.lineage.name.lower(), ""
            try:
                measured = one.network(edges, "the network")
            except EvaluationError as error:
                measured, reason = {}, str(error)
            for called, measure in REFERENCE_MEASURES.items():
                yield Score(
                    name, lineage, one.candidates.universe, one.k, len(one.is_true), measure, measured.get(called),
                    reason,
                )  # fmt: skip


def _on_interventions(data: AnyDataSet, prepared: Prepared, edges: EdgeList) -> Iterator[Score]:
    if data.interventions is None or prepared.atlas is None:
        return
    atlas = open_atlas(prepared.atlas)
    table = curve(atlas, edges, data.interventions.ks, omission=OmissionConfig(pairs=0))
    candidates = len(edges)
    for row in table.to_dict(orient="records"):
        for measure in AT_K:
            known = row[measure] == row[measure]  # NaN where the network has not so many edges
            value, reason = (float(row[measure]), "") if known else (None, str(row["reason"]))
            yield Score(INTERVENTIONS, "", "perturbed x genes", int(row["K"]), candidates, measure, value, reason)
