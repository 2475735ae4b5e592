"""A benchmark from its file to its tables: what is computed already is taken as it is, the rest is done."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from grndist.benchmarks.comparison.cells import Outcome, Plan, cells_of, kept, run_cell
from grndist.benchmarks.comparison.config import SHOWN, BenchmarkConfig, load_benchmark
from grndist.benchmarks.comparison.datasets import prepare, ready
from grndist.benchmarks.comparison.table import as_json, as_markdown, comparisons, for_figure, means, scores_table
from grndist.config import Tree
from grndist.errors import UserError
from grndist.evaluation.baselines import RunTasks, processes
from grndist.files import locked, remove, write_whole, written_aside
from grndist.launch.tasks import baseline_tasks
from grndist.machine import available_cpus
from grndist.plots import comparison_figure, write_figure
from grndist.progress import bar
from grndist.runs.folder import closed_at_end
from grndist.runs.stopping import stopped_at_once
from grndist.tracking import Tracker, open_parent

PARENT = "benchmark"  # the run in MLflow, and its folder
CHANCE = {"auprc_ratio": 1.0, "epr": 1.0}


@dataclass(frozen=True)
class Report:
    """What a benchmark says at its end."""

    text: str


def run_benchmark(
    file: Path, changes: Tree, jobs: int = 1, only_table: bool = False, address: str | None = None
) -> Report:
    """Compute the cells of a benchmark that are not there, and write its tables and its figure.

    A cell that failed is tried again. Cells are computed by so many processes, each with one thread, and do not depend
    on how many.

    Args:
        file: the benchmark file.
        changes: to it.
        jobs: processes.
        only_table: make the tables of the cells that are there, and compute none.
        address: of a Ray cluster whose nodes see the same files, which computes a cell on each CPU in place of
            processes here; "local": a new one on this machine.

    Raises:
        UserError: the file is not valid, data cannot be had, or another process is at work there.
        Interrupted: Ctrl-C or SIGTERM; cells that are done stay, and the same call goes on.
    """
    config = load_benchmark(file, changes)
    if only_table:
        return _table(config)
    message = f"stopped; what is done is in {config.out}, and the same command goes on"
    with _folder(config) as out, _tracked(config) as tracker, stopped_at_once(message):
        cpus = max(available_cpus() // jobs, 1) if address is None else 1
        plan = Plan(config, prepare(config), cells_of(config), cpus)
        found = {cell: kept(plan, cell) for cell in plan.cells}
        left = [
            number
            for number, cell in enumerate(plan.cells)
            if (outcome := found[cell]) is None or outcome.status == "failed"
        ]
        for outcome in _computed(plan, left, processes(jobs) if address is None else baseline_tasks(address)):
            found[outcome.cell] = outcome
        return _report(config, [found[cell] for cell in plan.cells], out, tracker)


def _table(config: BenchmarkConfig) -> Report:
    """Of the cells that are there, while a benchmark may be at work there."""
    plan = Plan(config, ready(config), cells_of(config))
    config.out.mkdir(parents=True, exist_ok=True)
    return _report(config, [kept(plan, cell) if plan.has(cell) else None for cell in plan.cells], config.out)


@contextmanager
def _folder(config: BenchmarkConfig) -> Iterator[Path]:
    """The benchmark's folder, held, with an empty folder to work in."""
    out = config.out
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / "lock", f"{out}: another benchmark is at work there; wait for it, or set out=FOLDER"):
        remove(out / "work")
        (out / "work").mkdir()
        yield out
        remove(out / "work")


@contextmanager
def _tracked(config: BenchmarkConfig) -> Iterator[Tracker]:
    """The benchmark's run in MLflow; the same one when it goes on."""
    tracker = open_parent(config.tracking, config.out, PARENT)
    tracker.log_settings(config.model_dump(mode="json"))
    with closed_at_end(tracker):
        yield tracker


def _computed(plan: Plan, left: Sequence[int], run_tasks: RunTasks) -> Iterator[Outcome]:
    done, failed = len(plan.cells) - len(left), 0
    with bar("{task.fields[last]}") as progress, closing(run_tasks(run_cell, plan, left)) as outcomes:
        task = progress.add_task("benchmark", total=len(plan.cells), completed=done, last="")
        try:
            for outcome in outcomes:
                failed += outcome.status == "failed"
                last = f"{failed} failed; " * (failed > 0) + str(outcome.cell)
                progress.update(task, advance=1, last=last)
                yield outcome
        except BrokenProcessPool:
            raise UserError(
                f"{plan.config.out}: a process was ended from outside, as it happens where memory runs out; what is "
                "done stays: the same command goes on, with less memory with --jobs 1"
            ) from None


def _report(
    config: BenchmarkConfig, outcomes: Sequence[Outcome | None], out: Path, tracker: Tracker | None = None
) -> Report:
    done = [outcome for outcome in outcomes if outcome is not None]
    table = scores_table(done)
    found = comparisons(config, table)
    text = as_markdown(config, found, len(done), len(outcomes))
    write_whole(out / "table.md", [text.encode()])
    write_whole(out / "table.json", [as_json(config, found).encode()])
    with written_aside(out / "scores.parquet", overwrite=True) as aside:
        table.to_parquet(aside, index=False)
    files = ["table.md", "table.json", "scores.parquet", *_figures(config, for_figure(found), out)]
    if tracker is not None:
        for file in files:
            tracker.log_file(out / file)
        tracker.log_scores(means(found))
    return Report(_text(done, len(outcomes), text, files, out, [] if tracker is None else tracker.where()))


def _text(
    done: Sequence[Outcome], n_cells: int, tables: str, files: Sequence[str], out: Path, where: Sequence[str]
) -> str:
    failed = [outcome for outcome in done if outcome.status == "failed"]
    most = max((outcome.peak_gib for outcome in done), default=0.0)
    is_whole = len(done) == n_cells and not failed
    return "\n".join([
        tables,
        *[f"failed: {outcome.cell}: {outcome.reason}" for outcome in failed],
        f"{len(done) - len(failed):,} of {n_cells:,} cells without failure; {sum(o.seconds for o in done):,.0f} s for "
        f"their networks; most memory of a process {most:.2f} GiB",
        f"{out}: {', '.join(files)}",
        *where,
        "",
        f"next: look at {out / files[-1]}" if is_whole else "next: the same command does what is missing or has failed",
        "",
    ])  # fmt: skip


def _figures(config: BenchmarkConfig, table: pd.DataFrame, out: Path) -> Iterator[str]:
    """One of each measure of accuracy; yields its name."""
    for measure in config.show:
        part = table[table["measure"] == measure]
        if measure != "seconds" and not part.empty:
            figure = comparison_figure(part, list(config.methods), CHANCE.get(measure), SHOWN[measure])
            write_figure(figure, out / f"{measure}.png", overwrite=True)
            yield f"{measure}.png"
