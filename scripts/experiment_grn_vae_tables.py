"""The tables and the picture of `experiment_grn_vae`, from the results that are there.

Values are means over seeds with standard deviations (n - 1) in brackets. Agreement is the mean Jaccard index of the
strongest edges of two seeds, over all pairs of seeds: among all ordered pairs of genes ("Jaccard, all pairs"), or among
the candidates of the first reference ("Jaccard, candidates"), as many as it has true edges.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from experiment_grn_vae_runs import EDGES_PER_GENE, Row
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

Line = dict[str, Any]  # of the results: one network
Rows = dict[str, Row]
Figures = dict[str, float]
LOSSES = {"seen": "loss, seen", "hidden": "loss, hidden", "from_others": "loss, from others"}
FIXED = "10 %"  # the rate to beat


@dataclass(frozen=True)
class Results:
    """Everything that was measured, by key."""

    work: Path
    lines: dict[str, Line]

    @classmethod
    def read(cls, work: Path) -> "Results":
        file = work / "results.jsonl"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else []
        return cls(work, {line["key"]: line for line in lines})

    def of(self, data: str, row: Row) -> list[Line]:
        """All seeds of a row on a data set."""
        asked = (data, row.kind, list(row.settings))
        return [line for line in self.lines.values() if (line["data"], line["kind"], line["settings"]) == asked]

    def agreement(self, lines: list[Line], kind: str, count: int) -> float | None:
        """Mean Jaccard index of the `count` strongest edges of two seeds; None for less than two seeds."""
        tops = [set(self._edges(line, kind)[:count].tolist()) for line in lines]
        found = [len(one & other) / len(one | other) for one, other in combinations(tops, 2)]
        return float(np.mean(found)) if found else None

    def _edges(self, line: Line, kind: str) -> np.ndarray:
        with np.load(self.work / "edges" / line["edges"]) as stored:
            return stored[kind]


def tables(question: str, rows: Rows, data: Sequence[str], results: Results) -> Figures:
    """Print everything there is to a question; returns the means."""
    figures: Figures = {}
    for name in data:
        found = {row: lines for row, of in rows.items() if (lines := results.of(name, of))}
        if found:
            for table in TABLES.get(question, [standard]):
                figures |= table(f"{question}, {name}", found, results)
    if question == "figure1b":
        figures |= scatter(rows, data, results)
    return figures


def standard(title: str, found: dict[str, list[Line]], results: Results) -> Figures:
    """EPR by reference, and what else is known of the first one."""
    references = list(_any(found)["scores"])
    first = references[0]
    columns: dict[str, Callable[[Line], float]] = {
        f"EPR, {name}": lambda line, name=name: line["scores"][name]["EPR"] for name in references
    }
    columns["AUPRC ratio"] = lambda line: line["scores"][first]["AUPRC ratio"]
    columns["EPR of BEELINE"] = lambda line: line["scores"][first]["BEELINE EPR"]
    columns["CPU s"] = lambda line: line.get("cpu_seconds", float("nan"))
    pairs = {"Jaccard, all pairs": "all", "Jaccard, candidates": first}
    agreements = {
        row: {name: results.agreement(lines, kind, lines[0]["k"]) for name, kind in pairs.items()}
        for row, lines in found.items()
    }
    return printed(f"{title}: k = {_any(found)['k']:,} of {first}", found, columns, agreements)


def label_free(title: str, found: dict[str, list[Line]], results: Results) -> Figures:
    """What is known without a reference, and EPR for comparison."""
    first = next(iter(_any(found)["scores"]))
    count = EDGES_PER_GENE * _any(found)["n_genes"]
    columns: dict[str, Callable[[Line], float]] = {
        f"EPR, {first}": lambda line: line["scores"][first]["EPR"],
        "AUPRC ratio": lambda line: line["scores"][first]["AUPRC ratio"],
    }
    columns |= {name: lambda line, key=key: line["held_out"][key] for key, name in LOSSES.items()}
    agreements = {row: {"Jaccard": results.agreement(lines, "all", count)} for row, lines in found.items()}
    zeros = f"{_any(found)['zeros']:.0%} zeros"
    return printed(f"{title}: {zeros}, Jaccard of the {count:,} strongest", found, columns, agreements)


def choices(title: str, found: dict[str, list[Line]], results: Results) -> Figures:
    """Which rate each label-free measure picks, what that is worth, and what the fixed and the best rate are worth."""
    first = next(iter(_any(found)["scores"]))
    count = EDGES_PER_GENE * _any(found)["n_genes"]
    worth = {row: _mean(line["scores"][first]["EPR"] for line in lines) for row, lines in found.items()}
    agreement = {row: results.agreement(lines, "all", count) or 0.0 for row, lines in found.items()}
    picked = {"most agreement": max(agreement, key=agreement.__getitem__)}
    for key, name in LOSSES.items():
        loss = {row: _mean(line["held_out"][key] for line in lines) for row, lines in found.items()}
        picked[f"least {name}"] = min(loss, key=loss.__getitem__)
    picked |= {f"fixed, {row}": row for row in found if row.endswith(f" {FIXED}")}
    picked["by the reference"] = max(worth, key=worth.__getitem__)
    table = _table(f"{title}: chosen by", ["row", f"EPR, {first}"])
    for how, row in picked.items():
        table.add_row(how, row, f"{worth[row]:.2f}")
    _console().print(table)
    return {_figure(f"{title}: chosen by {how}", "EPR"): round(worth[row], 4) for how, row in picked.items()}


def by_epoch(title: str, found: dict[str, list[Line]], results: Results) -> Figures:
    """EPR on the way, and the CPU seconds to there."""
    first = next(iter(_any(found)["scores"]))
    table = _table(f"{title}: EPR, {first} (CPU s)", list(found))
    epochs = sorted({point["epoch"] for lines in found.values() for line in lines for point in line["curve"]})
    figures = {}
    for epoch in epochs:
        cells = []
        for row, lines in found.items():
            points = [point for line in lines for point in line["curve"] if point["epoch"] == epoch]
            early, seconds = ([point[name] for point in points] for name in (first, "cpu_seconds"))
            cells.append(f"{_shown(early)}, {np.mean(seconds):.1f} s" if points else "-")
            if points:
                figures[_figure(f"{title}_{row}_epoch_{epoch}", "EPR")] = round(_mean(early), 4)
        table.add_row(str(epoch), *cells)
    _console().print(table)
    return figures


def scatter(rows: Rows, data: Sequence[str], results: Results) -> Figures:
    """EPR against the last step's sparse loss: a picture, and correlations."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sets = {(name, row): lines for name in data for row, of in rows.items() if len(lines := results.of(name, of)) > 2}
    figures: Figures = {}
    if not sets:
        return figures
    picture, axes = plt.subplots(1, len(sets), figsize=(4.5 * len(sets), 4), squeeze=False)
    for ((name, row), lines), axis in zip(sets.items(), axes.flat, strict=True):
        first = next(iter(lines[0]["scores"]))
        sparse = [line["losses"]["sparse"] for line in lines]
        early = [line["scores"][first]["EPR"] for line in lines]
        pearson, spearman = (float(kind(sparse, early).statistic) for kind in (stats.pearsonr, stats.spearmanr))
        axis.scatter(sparse, early, s=12)
        axis.set(xlabel="final sparse loss", ylabel=f"EPR, {first}")
        axis.set_title(f"{name}, {row}: {len(lines)} runs, r = {pearson:.2f}")
        print(f"figure1b, {name}, {row}: {len(lines)} runs, Pearson {pearson:.3f}, Spearman {spearman:.3f}")
        figures |= {f"figure1b_{name}_{row}_pearson": pearson, f"figure1b_{name}_{row}_spearman": spearman}
    picture.tight_layout()
    picture.savefig(results.work / "figure1b.png", dpi=150)
    plt.close(picture)
    print(f"{results.work / 'figure1b.png'}")
    return figures


def printed(
    title: str,
    found: dict[str, list[Line]],
    columns: dict[str, Callable[[Line], float]],
    agreements: dict[str, dict[str, float | None]],
) -> Figures:
    """A table of a value for every seed (`columns`, EPR first) and of values of all seeds together (`agreements`)."""
    table = _table(title, [*columns, *next(iter(agreements.values())), "seeds"])
    figures: Figures = {}
    for row, lines in found.items():
        values = {name: [column(line) for line in lines] for name, column in columns.items()}
        cells = [_shown(value, 3 if name in LOSSES.values() else 2) for name, value in values.items()]
        cells += ["-" if value is None else f"{value:.2f}" for value in agreements[row].values()]
        table.add_row(row, *cells, str(len(lines)))
        where = f"{title.partition(':')[0]}_{row}"
        agreed = {name: value for name, value in agreements[row].items() if value is not None}
        early = next(iter(values.values()))
        spread = {"EPR sd": float(np.std(early, ddof=1))} if len(early) > 1 else {}
        found_here = {"EPR": _mean(early)} | spread | agreed
        figures |= {_figure(where, name): round(value, 4) for name, value in found_here.items()}
    _console().print(table)
    return figures


TABLES = {"convergence": [by_epoch], "augmentation": [label_free, choices]}


def _any(found: dict[str, list[Line]]) -> Line:
    return next(iter(found.values()))[0]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _shown(values: list[float], decimals: int = 2) -> str:
    if np.isnan(values).any():
        return "-"
    spread = f" ({np.std(values, ddof=1):.{decimals}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{decimals}f}{spread}"


def _figure(*parts: str) -> str:
    return "_".join(parts).replace(", ", "_").replace(" ", "_")


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, box=box.MARKDOWN, header_style="", title_style="", title_justify="left")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _console() -> Console:
    return Console(width=200)
