"""What an evaluation gives: one table of measures, as JSON, as text, and as numbers to track."""

import json
import math
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from grndist.errors import UserError
from grndist.files import written_aside

RANDOM_DRAWS = 10
SHORT = {"EPR activation": "EPR +", "EPR repression": "EPR -", "sign agreement": "signs"}  # to fit a terminal
NAMES = ("method", "network", "reference", "lineage")  # columns that are never broken
NOTE = (
    f"EPR and AUPRC ratio: 1 is chance; random is the mean of {RANDOM_DRAWS} rankings. "
    "Compare rows of one lineage and universe only."
)


class EvaluationError(UserError):
    """The edge list cannot be scored against this reference."""


@dataclass(frozen=True)
class Counts:
    """What was compared, and what was left out of it."""

    reference: str
    reference_edges: int  # unique, without self-edges
    dropped_self: int
    dropped_duplicates: int
    outside_panel: int  # reference edges with a gene that is not in the panel
    panel_genes: int
    listed_edges: int
    random_draws: int
    seed: int


@dataclass(frozen=True)
class Scores:
    """One row of `table` per lineage and method.

    Columns: method, lineage, universe (which pairs are candidates), k (true edges among the candidates), candidates,
    covered (share of candidates that the method scores; the others count as 0), EPR, AUPRC, AUPRC ratio, AUROC, AUROC
    ratio (to 0.5) and, if the reference has signs, BEELINE's EPR activation and EPR repression; if the network has
    signs too, sign agreement: the share of the true edges in the top k with the right sign.
    """

    table: pd.DataFrame
    counts: Counts

    def to_json(self) -> str:
        """Everything, with numbers in full precision; a value that does not apply is null."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict(orient="records")
        return json.dumps({**asdict(self.counts), "scores": rows}, indent=2, allow_nan=False) + "\n"

    def flat(self) -> dict[str, float]:
        """Every measure of the network under a name of its own, e.g. "DAZZLE EPR"; what a tracker keeps."""
        own = self.table[self.table["method"] == "network"]
        return {
            f"{row['lineage']} {measure}": float(row[measure])
            for _, row in own.iterrows()
            for measure in ("EPR", "AUPRC", "AUPRC ratio", "AUROC")
        }

    def write(self, path: Path, overwrite: bool = False) -> None:
        """Write `to_json` to `path`, whole or not at all.

        Raises:
            UserError: `path` does not end in .json, or exists and `overwrite` is false.
        """
        if path.suffix.lower() != ".json":
            raise EvaluationError(f"{path}: scores are written as JSON; give a name that ends in .json")
        with written_aside(path, overwrite) as aside:
            aside.write_text(self.to_json(), encoding="utf-8")

    def render(self, width: int = 120) -> str:
        """The table as text for a terminal of `width` columns."""
        shown = self.table.drop(columns=["universe", "k", "candidates", "AUROC ratio"])
        return "\n".join([self._heading(), *self._universes(), rendered(shown, width) + NOTE, ""])

    def _universes(self) -> list[str]:
        """What is ranked, a line for each lineage."""
        return [
            f"{row['lineage']}: {row['universe']}, {row['k']:,} of {row['candidates']:,} candidates are true"
            for row in self.table.drop_duplicates("lineage").to_dict(orient="records")
        ]

    def _heading(self) -> str:
        counts = self.counts
        used = counts.reference_edges - counts.outside_panel
        return (
            f"{counts.reference}: {used} of {counts.reference_edges} edges have both genes in the panel of "
            f"{counts.panel_genes} genes; dropped: "
            f"{counts.dropped_self} self-edges, {counts.dropped_duplicates} duplicates"
        )


def rendered(table: pd.DataFrame, width: int) -> str:
    """A table as text for a terminal of `width` columns; what does not apply is blank."""
    shown = Table()
    for column in table.columns:
        is_text, name = table[column].dtype == object, SHORT.get(column, column)
        keep = column in NAMES
        shown.add_column(name, justify="left" if is_text else "right", no_wrap=keep, overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*map(_shown, row))
    text = StringIO()
    Console(file=text, width=width).print(shown)
    return text.getvalue()


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value)
