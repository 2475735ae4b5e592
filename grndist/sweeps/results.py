"""What came of a sweep: one table of its trials, figures, the best, and what to do next. Reads the ledger alone."""

import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from statistics import stdev
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from grndist.files import written_aside
from grndist.plots import write_figure
from grndist.plots.sweep import objective_over_time, parallel_coordinates, parameters_against_objective
from grndist.sweeps.config import Sweep
from grndist.sweeps.confirm import Confirmation
from grndist.sweeps.importance import importance
from grndist.sweeps.ledger import Ledger, Trial
from grndist.sweeps.objectives import ObjectiveConfig
from grndist.sweeps.pareto import pareto_front
from grndist.sweeps.space import Scale, Settings

BASELINES, SUMMARY, TRIALS, BEST = "baselines.json", "summary.txt", "trials.parquet", "best.yaml"
SHOWN = 10  # of the trials
WIDTH = 118


def best_of(trials: Sequence[Trial], goal: ObjectiveConfig) -> Trial | None:
    """The finished trial of the best mean over its replicates; of equal ones the first. None: none has finished."""
    sign = 1 if goal.direction == "max" else -1
    known = [trial for trial in trials if trial.status == "finished" and math.isfinite(trial.mean(goal.name))]
    return max(known, key=lambda trial: sign * trial.mean(goal.name), default=None)


def table_of(sweep: Sweep, ledger: Ledger) -> pd.DataFrame:
    """A row a trial: number, settings, mean and spread (sd) over replicates of every objective, how it ended."""
    rows = [_row(sweep, ledger, trial) for trial in ledger.trials()]
    return pd.DataFrame(rows)


def _row(sweep: Sweep, ledger: Ledger, trial: Trial) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.number} | {key: trial.settings.get(key) for key in sweep.space}
    for objective in sweep.config.objectives:
        values = trial.values.get(objective.name, [])
        row[objective.name] = trial.mean(objective.name)
        row[f"{objective.name} sd"] = stdev(values) if len(values) > 1 else math.nan
    part = trial.looks[-1].part if trial.looks else 0.0
    seconds = ledger.since_start(trial.ended)
    return row | {"status": trial.status, "part": part, "seconds": seconds, "error": trial.error}


def scales(sweep: Sweep) -> dict[str, Scale]:
    """How pictures show each parameter."""
    return {key: parameter.scale for key, parameter in sweep.space.items()}


def written(sweep: Sweep, ledger: Ledger, confirmed: Confirmation | None) -> list[Path]:
    """Write the table, the figures and the best run's file; their paths."""
    table, goal, folder = table_of(sweep, ledger), sweep.config.goal, ledger.folder
    with written_aside(folder / TRIALS, overwrite=True) as aside:
        _storable(table, sweep).to_parquet(aside, index=False)
    lines = _lines(ledger, goal, confirmed)
    figures = {
        "parallel.png": parallel_coordinates(table, scales(sweep), goal.name, goal.direction, lines),
        "over_time.png": objective_over_time(table, scales(sweep), goal.name, goal.direction, lines),
        "parameters.png": parameters_against_objective(table, scales(sweep), goal.name, goal.direction, lines),
    }
    for name, figure in figures.items():
        write_figure(figure, folder / name, overwrite=True)
    best = best_of(ledger.trials(), goal)
    assert best is not None
    with written_aside(folder / BEST, overwrite=True) as aside:
        aside.write_text(_run_file(sweep, best))
    return [folder / name for name in (TRIALS, *figures, BEST)]


def _storable(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """With one type a column: categories of several are text."""
    words = {key: table[key].astype("string") for key, scale in scales(sweep).items() if scale == "categorical"}
    return table.assign(**words)


def _lines(ledger: Ledger, goal: ObjectiveConfig, confirmed: Confirmation | None) -> dict[str, float]:
    """What stands beside the trials: baselines, and the run's own settings on fresh seeds."""
    lines = {
        method: values[goal.name] for method, values in (ledger.read(BASELINES) or {}).items() if goal.name in values
    }
    if confirmed is not None:
        lines["run's own settings"] = _mean(confirmed.default[goal.name])
    return {name: value for name, value in lines.items() if value is not None and math.isfinite(value)}


def _run_file(sweep: Sweep, best: Trial) -> str:
    """A run file that trains the best settings in full."""
    config = sweep.run(best.settings, Path(sweep.base.runs), sweep.base.training.seed)
    tree = config.model_dump(mode="json", exclude={"tracking", "workers"})
    tree |= {
        "name": f"{sweep.config.name}-best",
        "runs": sweep.base.runs,
        "tracking": sweep.base.tracking.model_dump(mode="json"),
    }
    tree["training"]["threads"] = sweep.base.training.threads
    if not tree["preset"]:
        del tree["preset"]
    head = f"# Trial {best.number} of the sweep {sweep.config.name}: {said(best.settings)}\n"
    return head + yaml.safe_dump(tree, sort_keys=False)


def rendered(sweep: Sweep, ledger: Ledger, confirmed: Confirmation | None) -> str:
    """The summary as text."""
    page = StringIO()
    console = Console(file=page, width=WIDTH, highlight=False)
    trials, goal = ledger.trials(), sweep.config.goal
    best = best_of(trials, goal)
    assert best is not None
    console.print(_counts(sweep, ledger, trials), soft_wrap=True)
    console.print(_best_trials(sweep, trials))
    if len(sweep.config.objectives) > 1:
        console.print(_pareto(sweep, ledger))
    console.print(_importance(sweep, ledger))
    if confirmed is not None:
        console.print(_on_fresh_seeds(sweep, ledger, confirmed))
    console.print(
        f"\nbest: trial {best.number}, {said(best.settings)}\n"
        f"everything is in {ledger.folder}: {TRIALS}, parallel.png, over_time.png, parameters.png, trials/\n"
        f"\nnext: grndist train {ledger.folder / BEST}\n"
        f"then: grndist models register {Path(sweep.base.runs) / f'{sweep.config.name}-best'} --name NAME",
        soft_wrap=True,
    )
    return page.getvalue()


def said(settings: Settings) -> str:
    """Settings as they would be written on the command line."""
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items()) or "the run's own settings"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _counts(sweep: Sweep, ledger: Ledger, trials: Sequence[Trial]) -> str:
    states = {state: sum(trial.status == state for trial in trials) for state in ("finished", "stopped", "failed")}
    parts = ", ".join(f"{number} {state}" for state, number in states.items() if number)
    seconds = ledger.seconds_used()
    failed = [f"trial {trial.number} failed: {trial.error}" for trial in trials if trial.status == "failed"]
    rate = f", {60 * len(trials) / seconds:.1f} trials a minute" if seconds else ""
    lines = [
        f"{len(trials)} trials ({parts}) of {sweep.config.replicates} replicates in {seconds:.0f} s{rate}",
        *failed[:3],
    ]
    more = [f"... and {len(failed) - 3} more failed"] if len(failed) > 3 else []
    return "\n".join([*lines, *more])


def _best_trials(sweep: Sweep, trials: Sequence[Trial]) -> Table:
    goal = sweep.config.goal
    sign = 1 if goal.direction == "max" else -1
    known = [trial for trial in trials if trial.status == "finished" and math.isfinite(trial.mean(goal.name))]
    known.sort(key=lambda trial: -sign * trial.mean(goal.name))
    several = sweep.config.replicates > 1
    table = Table(title=f"best trials, by {goal.name}{': mean (sd over replicates)' if several else ''}")
    table.add_column("trial", justify="right")
    for objective in sweep.config.objectives:
        table.add_column(objective.name, justify="right")
    for key in sweep.space:
        table.add_column(key.rpartition(".")[2], justify="right")
    for trial in known[:SHOWN]:
        values = [_spread(trial.values.get(objective.name, [])) for objective in sweep.config.objectives]
        settings = ["-" if key not in trial.settings else _short(trial.settings[key]) for key in sweep.space]
        table.add_row(str(trial.number), *values, *settings)
    return table


def _pareto(sweep: Sweep, ledger: Ledger) -> Table:
    directions = {objective.name: objective.direction for objective in sweep.config.objectives}
    table = table_of(sweep, ledger)
    front = pareto_front(table[table["status"] == "finished"], directions)
    shown = Table(title="Pareto front: no other trial is better in one objective and as good in all")
    for column in ("trial", *directions):
        shown.add_column(column, justify="right")
    for _, row in front.iterrows():
        shown.add_row(str(row["trial"]), *(f"{row[name]:.4g}" for name in directions))
    return shown


def _importance(sweep: Sweep, ledger: Ledger) -> Table | str:
    found = importance(table_of(sweep, ledger), scales(sweep), sweep.config.goal.name, sweep.config.seed)
    if found.empty:
        return "importance of the parameters: too few finished trials to say"
    table = Table(title="importance of each parameter (permutation, in a forest fitted to the trials)")
    for column in ("parameter", "importance", "sd"):
        table.add_column(column, justify="left" if column == "parameter" else "right")
    for _, row in found.iterrows():
        table.add_row(str(row["parameter"]), f"{row['importance']:.3f}", f"{row['sd']:.3f}")
    return table


def _on_fresh_seeds(sweep: Sweep, ledger: Ledger, confirmed: Confirmation) -> Table:
    table = Table(title=f"on fresh seeds {confirmed.seeds[0]}-{confirmed.seeds[-1]}: mean (sd)")
    table.add_column("settings")
    for objective in sweep.config.objectives:
        table.add_column(objective.name, justify="right")
    rows: Mapping[str, Mapping[str, list[float]]] = {
        f"best (trial {confirmed.number})": confirmed.best,
        "the run's own": confirmed.default,
    }
    for who, values in rows.items():
        table.add_row(who, *(_spread(values[objective.name]) for objective in sweep.config.objectives))
    for method, known in (ledger.read(BASELINES) or {}).items():
        table.add_row(
            method,
            *(_spread([known[o.name]] if known.get(o.name) is not None else []) for o in sweep.config.objectives),
        )
    return table


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{_mean(values):.4g}" + (f" ({stdev(values):.2g})" if len(values) > 1 else "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
