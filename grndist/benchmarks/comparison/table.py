"""The comparison: every score as a row of one table, and of it means and spreads, methods x columns, by measure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from grndist.benchmarks.comparison.cells import Outcome, cells_of
from grndist.benchmarks.comparison.config import SHOWN, BenchmarkConfig
from grndist.benchmarks.comparison.scores import AT_K

DASH = "-"
COLUMNS = [
    "data_set", "method", "seed", "status", "reason", "reference", "lineage", "universe", "k", "candidates", "measure",
    "value",
]  # fmt: skip
LOWER_IS_BETTER = {"seconds"}


def scores_table(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """A row for each score of each cell, its seconds among them; a cell without scores is a row without a measure."""
    rows = []
    for one in outcomes:
        cell = {"data_set": one.cell.data_set, "method": one.cell.method, "seed": one.cell.seed, "status": one.status}
        rows += [{**cell, **score.as_dict()} for score in one.scores]
        if one.status == "done":
            rows.append({**cell, "measure": "seconds", "value": one.seconds, "reason": ""})
        else:
            rows.append({**cell, "measure": "", "reason": one.reason})
    table = pd.DataFrame(rows, columns=COLUMNS)
    numbers = {"k": "Int64", "candidates": "Int64", "value": "float64"}
    return table.fillna({"reference": "", "lineage": "", "universe": "", "reason": ""}).astype(numbers)


@dataclass(frozen=True)
class Entry:
    """A place of the comparison: values of the seeds that have one, and why there are fewer, if so."""

    values: tuple[float, ...] = ()
    reasons: tuple[str, ...] = ()
    missing: int = 0  # seeds that are not computed yet

    @property
    def mean(self) -> float:
        """Of the seeds that have a value; NaN of none."""
        return float(np.mean(self.values)) if self.values else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation (n - 1) over them; NaN of fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")

    def shown(self, digits: int) -> str:
        """E.g. "1.46 (0.05)"; of one value without spread; with n=2 where seeds are still to come; a dash for none."""
        if not self.values:
            return "..." if self.missing and not self.reasons else DASH
        spread = f" ({self.spread:.{digits}f})" if len(self.values) > 1 else ""
        return f"{self.mean:.{digits}f}{spread}" + f" n={len(self.values)}" * (self.missing > 0)


@dataclass(frozen=True)
class Comparison:
    """One measure: methods x columns; a column is a data set and a reference, or a number of edges K."""

    measure: str
    columns: tuple[str, ...]
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)  # by method and column

    @property
    def digits(self) -> int:
        """After the point."""
        return {"seconds": 1, "mean_wasserstein": 3, "rank_sum_precision": 3, "auprc": 3}.get(self.measure, 2)

    def best(self, column: str) -> str:
        """The method with the best mean; empty where none has one."""
        means = {method: entry.mean for (method, at), entry in self.entries.items() if at == column and entry.values}
        if not means:
            return ""
        return (min if self.measure in LOWER_IS_BETTER else max)(means, key=means.__getitem__)


def comparisons(config: BenchmarkConfig, table: pd.DataFrame) -> list[Comparison]:
    """The measures that are shown, each over the columns that have it."""
    return [found for measure in config.show if (found := _comparison(config, table, measure)).columns]


def _comparison(config: BenchmarkConfig, table: pd.DataFrame, measure: str) -> Comparison:
    lineage = table["data_set"].map({name: data.lineage for name, data in config.data_sets.items()})
    shown = table[(table["measure"] == measure) & ((table["lineage"] == "") | (table["lineage"] == lineage))]
    columns: dict[str, tuple[str, pd.DataFrame]] = {}
    for name in config.data_sets:
        of_data = shown[shown["data_set"] == name]
        parts = list(of_data.groupby(["reference", "k"] if measure in AT_K else ["reference"], sort=False))
        several = len(parts) > 1
        for (reference, *k), part in parts:
            label = f"{name}, K={k[0]}" if k else f"{name}, {reference}" if several and reference else name
            columns[label] = (name, part)
    entries = {
        (method, label): _entry(config, table, name, method, part)
        for label, (name, part) in columns.items()
        for method in config.methods
    }
    return Comparison(measure, tuple(columns), entries)


def _entry(config: BenchmarkConfig, table: pd.DataFrame, data_set: str, method: str, part: pd.DataFrame) -> Entry:
    own = part[part["method"] == method]
    cells = table[(table["data_set"] == data_set) & (table["method"] == method)]
    without = cells[cells["measure"] == ""]
    said = [("failed: " * (row.status == "failed")) + str(row.reason) for row in without.itertuples()]
    reasons = [*own.loc[own["value"].isna(), "reason"], *said]
    wanted = sum((cell.data_set, cell.method) == (data_set, method) for cell in cells_of(config))
    missing = wanted - cells["seed"].nunique()
    return Entry(tuple(own["value"].dropna()), tuple(dict.fromkeys(reasons)), missing)


def as_markdown(config: BenchmarkConfig, found: Sequence[Comparison], n_done: int, n_cells: int) -> str:
    """Every comparison as a table, then why places are empty."""
    seeds = ", ".join(map(str, config.seeds))
    lines = [
        f"Mean (standard deviation, n - 1) over seeds {seeds}; one number: the method has no seed and the data are the "
        "same for all. Best of a column in bold. AUPRC ratio and EPR: 1 is chance.",
    ]
    if n_done < n_cells:
        lines.append(f"**{n_cells - n_done} of {n_cells} cells are not computed yet** (`...`, or n seeds of them).")
    notes: dict[str, str] = {}
    for one in found:
        better = "less" if one.measure in LOWER_IS_BETTER else "more"
        lines += ["", f"### {SHOWN[one.measure]} ({better} is better)", "", *_rows(config, one, notes)]
    if notes:
        lines += ["", "Without a number, or with fewer seeds:", ""]
        lines += [f"- {number} {reason}" for reason, number in notes.items()]
    return "\n".join(lines) + "\n"


def _rows(config: BenchmarkConfig, one: Comparison, notes: dict[str, str]) -> list[str]:
    rows = [["method", *one.columns]]
    for method in config.methods:
        row = [method]
        for column in one.columns:
            entry = one.entries[method, column]
            text = entry.shown(one.digits)
            marks = [notes.setdefault(reason, f"[{len(notes) + 1}]") for reason in entry.reasons]
            bold = "**" if method == one.best(column) and one.measure not in LOWER_IS_BETTER else ""
            row.append(" ".join([f"{bold}{text}{bold}", *marks]))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return [padded[0], rule, *padded[1:]]


def as_json(config: BenchmarkConfig, found: Sequence[Comparison]) -> str:
    """The means and spreads, and the benchmark's settings."""
    rows = [
        {
            "measure": one.measure, "column": column, "method": method, "mean": _or_none(entry.mean),
            "sd": _or_none(entry.spread), "values": list(entry.values), "reasons": list(entry.reasons),
        }
        for one in found
        for (method, column), entry in one.entries.items()
    ]  # fmt: skip
    tree = {"benchmark": config.model_dump(mode="json"), "comparison": rows}
    return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def means(found: Sequence[Comparison]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by measure, column and method; what a tracker keeps."""
    return {
        one.measure: {
            column: {method: entry.mean for (method, at), entry in one.entries.items() if at == column and entry.values}
            for column in one.columns
        }
        for one in found
    }


def for_figure(found: Sequence[Comparison]) -> pd.DataFrame:
    """Columns panel, measure, method, value: a row for each seed."""
    rows = [
        {"panel": column, "measure": one.measure, "method": method, "value": value}
        for one in found
        for (method, column), entry in one.entries.items()
        for value in entry.values
    ]
    return pd.DataFrame(rows, columns=["panel", "measure", "method", "value"])


def _or_none(number: float) -> float | None:
    return number if np.isfinite(number) else None
