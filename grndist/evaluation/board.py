"""What scoring many networks gives: one table, as Parquet, JSON and text, and as numbers to track."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from grndist.evaluation.scores import RANDOM_DRAWS, Counts, rendered
from grndist.evaluation.tables import ScoreTable
from grndist.networks.stability import Stability

TOP = "CausalBench"  # the lineage of rows on the strongest edges
RANKING_MEASURES = ("EPR", "AUPRC", "AUPRC ratio", "AUROC", "EPR activation", "EPR repression", "sign agreement")
TOP_MEASURES = ("true positives", "precision", "recall", "F1", "precision ratio")

# columns of the table; what does not apply to a row is missing
COLUMNS = {
    "network": "name of the network, or of the baseline",
    "baseline": "whether it is one: random (mean of ten rankings; of the strongest edges, the expectation) or absolute "
    "correlation, over the same candidates",
    "reference": "name of the reference network",
    "lineage": "whose definitions: DAZZLE and BEELINE rank all candidates, CausalBench takes the strongest edges",
    "directed": "whether the reference has directions; without, CausalBench's pairs have none either",
    "universe": "which pairs are candidates",
    "panel genes": "genes that could be in a candidate, those of the store or of the network",
    "k": "true edges among the candidates",
    "candidates": "pairs that could have been right or wrong",
    "covered": "share of the candidates that the network lists; the others score 0",
    "EPR": "early precision ratio; 1 is chance",
    "AUPRC": "DAZZLE: average precision; BEELINE: trapezoid under precision and recall",
    "AUPRC ratio": "AUPRC / (k / candidates); 1 is chance",
    "AUROC": "area under the receiver operating characteristic; 0.5 is chance",
    "AUROC ratio": "AUROC / 0.5; 1 is chance",
    "EPR activation": "BEELINE's EPR of activating edges, other true edges left out",
    "EPR repression": "BEELINE's EPR of repressing edges, other true edges left out",
    "sign agreement": "share of the true edges in the top k that have the right sign",
    "edges": "strongest edges compared; fewer than asked for where the network lists fewer",
    "true positives": "those of them that the reference has, as CausalBench counts them",
    "precision": "true positives / edges",
    "recall": "true positives / k",
    "F1": "2 x true positives / (edges + k)",
    "precision ratio": "precision / (k / candidates); 1 is chance",
}
WHOLE = ("panel genes", "k", "candidates", "edges")


@dataclass(frozen=True)
class Board(ScoreTable):
    """Rows of `table` are network x reference x lineage, its columns `COLUMNS`."""

    networks: Mapping[str, str]  # where each is, by its name
    references: Mapping[str, Counts]  # what was compared, by name; of the first network's panel
    top: int
    stability: Stability | None = None  # of the networks as replicates

    def about(self) -> dict[str, Any]:
        """Places, what was compared, and what the columns are."""
        return {
            "networks": dict(self.networks),
            "references": {name: asdict(counts) for name, counts in self.references.items()},
            "columns": COLUMNS,
            "top": self.top,
            "stability": None if self.stability is None else without_nan(asdict(self.stability)),
        }

    def flat(self, network: str) -> dict[str, float]:
        """Every measure of one network, e.g. "STRING DAZZLE EPR" or "CORUM F1 at 1000"; what a tracker keeps."""
        own = self.table[(self.table["network"] == network) & ~self.table["baseline"]]
        found: dict[str, float] = {}
        for row in own.to_dict(orient="records"):
            is_top = row["lineage"] == TOP
            for measure in TOP_MEASURES if is_top else RANKING_MEASURES:
                if pd.notna(row[measure]):
                    name = f"{measure} at {row['edges']}" if is_top else f"{row['lineage']} {measure}"
                    found[f"{row['reference']} {name}"] = float(row[measure])
        return found

    def render(self, width: int = 120) -> str:
        """The table as text: rankings, the strongest edges, and how much replicates agree."""
        lines = [self._heading(name, counts) for name, counts in self.references.items()]
        ranked, top = self.table[self.table["lineage"] != TOP], self.table[self.table["lineage"] == TOP]
        names = ["network", "reference", "lineage", "k", "candidates", "covered"]
        for part, columns in (
            (ranked, [*names, *RANKING_MEASURES]),
            (top, ["network", "reference", "directed", "edges", "k", *TOP_MEASURES]),
        ):
            if len(part):
                known = [name for name in columns if part[name].notna().any() and name != "AUPRC"]
                lines.append(rendered(part[known], width).rstrip("\n"))
        if self.stability is not None:
            lines.append(agreement(self.stability, self.top))
        return "\n".join(
            [*lines, f"1 is chance for ratios and EPR; random is the mean of {RANDOM_DRAWS} rankings.", ""]
        )

    def _heading(self, name: str, counts: Counts) -> str:
        used = counts.reference_edges - counts.outside_panel
        return (
            f"{name}: {counts.reference}, {used} of {counts.reference_edges} edges have both genes in the panel of "
            f"{counts.panel_genes} genes"
        )


def agreement(found: Stability, k: int) -> str:
    """How much replicates agree, in words."""
    return (
        f"replicates, {found.pairs} pairs: Jaccard index of the top {k} {found.jaccard:.3f} "
        f"(median {found.jaccard_median:.3f}), Spearman's correlation of signed weights {found.spearman:.3f} "
        f"(median {found.spearman_median:.3f})"
    )


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table of `COLUMNS`, whatever each of them has."""
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    names = ("network", "baseline", "reference", "lineage", "directed", "universe")
    for name in table.columns.difference(names):
        table[name] = table[name].astype("Int64" if name in WHOLE else "float64")
    return table


def without_nan(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """The same numbers, None where one is not a number."""
    return {name: None if pd.isna(value) else value for name, value in numbers.items()}
