"""What came of the cases: curves, one table at K edges, the challenge's score, a figure. Reads the ledger alone."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from grndist.benchmarks.causalbench.case import Case
from grndist.benchmarks.causalbench.config import RegimesConfig
from grndist.benchmarks.causalbench.ledger import Ledger
from grndist.config import Tree
from grndist.evaluation.interventional import band
from grndist.evaluation.interventional.curves import MEASURES
from grndist.files import written_aside
from grndist.plots import write_figure
from grndist.plots.regimes import regimes_figure

CURVES, SCORES, FIGURE, SUMMARY = "curves.parquet", "scores.json", "causalbench.png", "summary.txt"
WIDTH = 126


@dataclass(frozen=True)
class Score:
    """One model by the measure of the CausalBench challenge: mean Wasserstein distance at K over the fractions.

    NaN where a fraction has no value, or there are fewer than two.
    """

    model: str
    area: float  # trapezoids over the fractions, from the smallest to the largest (0.25 to 1: 0.75 wide)
    area_sd: float  # over seeds; 0 of one seed
    trend: float  # value at the largest fraction minus that at the smallest; more interventions should help
    trend_sd: float


def curves_of(ledger: Ledger, cases: Sequence[Case]) -> pd.DataFrame:
    """A row for each case and K: model, fraction, seed, `curve`'s columns, trained_on (cells), seconds."""
    parts = []
    for case in cases:
        about = ledger.read(case)
        known = {"model": case.contender.name, "fraction": case.fraction, "seed": case.seed}
        table = ledger.curve(case).assign(**known, trained_on=about["trained_on"], seconds=about["seconds"])
        if about["reason"]:
            table["reason"] = about["reason"]
        parts.append(table)
    whole = pd.concat(parts, ignore_index=True)
    first = ["model", "fraction", "seed"]
    return whole[[*first, *(column for column in whole if column not in first)]]


def bands_of(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over seeds: a row for each model, fraction and K, models in the order they were given."""
    parts = []
    for (model, fraction), part in curves.groupby(["model", "fraction"], sort=False):
        of_seeds = [one for _, one in part.groupby("seed")]
        parts.append(band(of_seeds).assign(model=model, fraction=fraction))
    return pd.concat(parts, ignore_index=True)


def scores_of(curves: pd.DataFrame, k: int) -> list[Score]:
    """The challenge's score of every model, of each seed first."""
    at_k = curves[curves["K"] == k]
    return [_score(str(model), part) for model, part in at_k.groupby("model", sort=False)]


def _score(model: str, part: pd.DataFrame) -> Score:
    wide = part.pivot(index="seed", columns="fraction", values="mean_wasserstein")
    fractions, values = wide.columns.to_numpy(np.float64), wide.to_numpy(np.float64)
    if len(fractions) < 2:
        return Score(model, math.nan, math.nan, math.nan, math.nan)
    areas = np.trapezoid(values, fractions, axis=1)
    return Score(model, *_mean_and_sd(areas), *_mean_and_sd(values[:, -1] - values[:, 0]))


def _mean_and_sd(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0 * float(values.mean())


def written(ledger: Ledger, config: RegimesConfig, cases: Sequence[Case]) -> tuple[list[Path], Tree]:
    """Write curves, scores, the figure and the summary; their paths, and the scores."""
    curves = curves_of(ledger, cases)
    bands = bands_of(curves)
    scores = scores_of(curves, config.k)
    with written_aside(ledger.folder / CURVES, overwrite=True) as aside:
        curves.to_parquet(aside, index=False)
    tree = _tree(config, bands, scores)
    with written_aside(ledger.folder / SCORES, overwrite=True) as aside:
        aside.write_text(json.dumps(tree, indent=1))
    write_figure(regimes_figure(bands, config.k), ledger.folder / FIGURE, overwrite=True)
    with written_aside(ledger.folder / SUMMARY, overwrite=True) as aside:
        aside.write_text(rendered(ledger, config, curves, bands, scores))
    return [ledger.folder / name for name in (CURVES, SCORES, FIGURE, SUMMARY)], tree


def _tree(config: RegimesConfig, bands: pd.DataFrame, scores: Sequence[Score]) -> Tree:
    at_k = bands[bands["K"] == config.k]
    models: Tree = {score.model: {"challenge": _known(asdict(score))} for score in scores}
    for _, row in at_k.iterrows():
        values = {name: row[name] for measure in MEASURES for name in (measure, f"{measure}_sd")}
        models[row["model"]][f"fraction {row['fraction']:g}"] = _known(values) | {"seeds": int(row["seeds"])}
    return {"k": config.k, "seeds": len(config.seeds), "models": models}


def _known(values: Tree) -> Tree:
    """Numbers alone, None for one that is not known, as JSON has no NaN."""
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    return {name: float(value) if math.isfinite(value) else None for name, value in numbers.items()}


def rendered(
    ledger: Ledger, config: RegimesConfig, curves: pd.DataFrame, bands: pd.DataFrame, scores: Sequence[Score]
) -> str:  # as text
    """The summary: one table of models and fractions, the challenge's score, what is missing and why."""
    page = StringIO()
    console = Console(file=page, width=WIDTH, highlight=False)
    console.print(_at_k(config, curves, bands))
    if len(config.fractions) > 1:
        console.print(_challenge(config, scores))
    for line in missing(curves, config.k):
        console.print(line, soft_wrap=True)
    console.print(
        f"\neverything is in {ledger.folder}: {CURVES}, {SCORES}, {FIGURE}, cases/, networks/, runs/", soft_wrap=True
    )
    return page.getvalue()


def missing(curves: pd.DataFrame, k: int) -> list[str]:
    """A line for every case without a value at K edges."""
    at_k = curves[(curves["K"] == k) & curves["mean_wasserstein"].isna()]
    return [
        f"{row['model']}, fraction {row['fraction']:g}, seed {row['seed']}: no value at {k:,} edges: {row['reason']}"
        for _, row in at_k.iterrows()
    ]


def _at_k(config: RegimesConfig, curves: pd.DataFrame, bands: pd.DataFrame) -> Table:
    several = ": mean (sd over seeds)" if len(config.seeds) > 1 else ""
    table = Table(
        title=f"mean Wasserstein distance, rank-sum precision and false omission rate of the first {config.k:,} "
        f"testable edges on held-out cells{several}"
    )
    table.add_column("model", no_wrap=True)
    for column in ("fraction", "Wasserstein", "precision", "FOR", "untestable", "trained on", "seconds"):
        table.add_column(column, justify="right")
    own = curves[curves["K"] == config.k].groupby(["model", "fraction"])[["untestable", "trained_on", "seconds"]].mean()
    at_k = bands[bands["K"] == config.k]
    for model, part in at_k.groupby("model", sort=False):
        for number, (_, row) in enumerate(part.iterrows()):
            known = own.loc[(model, row["fraction"])]
            numbers = [_spread(row[measure], row[f"{measure}_sd"], int(row["seeds"])) for measure in MEASURES]
            table.add_row(
                str(model) if number == 0 else "", f"{row['fraction']:g}", *numbers, f"{known['untestable']:.0f}",
                f"{known['trained_on']:,.0f}", f"{known['seconds']:.0f}", end_section=number == len(part) - 1,
            )  # fmt: skip
    return table


def _challenge(config: RegimesConfig, scores: Sequence[Score]) -> Table:
    table = Table(
        title=f"challenge score: mean Wasserstein at {config.k:,} edges over the fractions "
        f"{config.fractions[0]:g} to {config.fractions[-1]:g}"
    )
    table.add_column("model")
    table.add_column("area", justify="right")
    table.add_column("trend, last - first", justify="right")
    n = len(config.seeds)
    for score in sorted(scores, key=lambda one: -one.area if math.isfinite(one.area) else math.inf):
        table.add_row(score.model, _spread(score.area, score.area_sd, n), _spread(score.trend, score.trend_sd, n))
    return table


def _spread(mean: float, sd: float, n: int) -> str:
    if not math.isfinite(mean):
        return "-"
    return f"{mean:.4f}" + (f" ({sd:.4f})" if n > 1 else "")
