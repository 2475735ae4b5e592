"""A sweep from its file to its summary: trials on Ray, the winner on fresh seeds, everything kept in a folder."""

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grndist import models
from grndist.config import Tree, validate
from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.files import written_aside
from grndist.launch.cluster import joined_or_own
from grndist.progress import bar
from grndist.runs.folder import closed_at_end
from grndist.runs.stopping import Interrupted, collected, stopped_at_once
from grndist.storage import is_remote
from grndist.sweeps import results
from grndist.sweeps.config import TRIED, Sweep, load_sweep
from grndist.sweeps.confirm import Confirmation, confirm
from grndist.sweeps.ledger import Ledger, opened
from grndist.sweeps.objectives import baseline, refuse_unfit
from grndist.sweeps.plan import plan_of
from grndist.sweeps.trial import Order
from grndist.sweeps.tuning import Asked, concurrent, tuned
from grndist.tracking import Tracker, TrackingConfig, end_if_open, open_parent, reference

logger = logging.getLogger(__name__)

HOUR = 3600.0


@dataclass(frozen=True)
class SweepSummary:
    """What a finished sweep says at the end."""

    folder: Path
    text: str


def run_sweep(path: Path, overrides: Tree, resume: bool = False) -> SweepSummary:
    """Run a sweep, or go on with one, and write what came of it into its folder.

    Raises:
        UserError: the sweep file, its run, the data or the cluster do not allow it, or no trial has finished.
        Interrupted: Ctrl-C or SIGTERM; everything that has finished is kept.
    """
    sweep = load_sweep(path, overrides)
    config = sweep.config
    if is_remote(config.sweeps) or is_remote(sweep.base.runs):
        raise UserError(
            f"{path}: sweeps={config.sweeps}: a sweep is kept in a folder that every node mounts, not at a URL; give "
            "sweeps=/PATH/... and a run root (runs) that is a folder, too"
        )
    if config.search == "tpe" and importlib.util.find_spec("optuna") is None:
        raise UserError(f"{path}: search=tpe needs Optuna; pip install 'grndist[sweep]', or set search=random")
    _refuse_looks(sweep)
    refuse_unfit(config.objectives, sweep.base, config.replicates)
    digest = open_store(sweep.base.store).digest
    with opened(sweep, digest, resume) as ledger, _tracked(sweep, ledger) as parent:
        message = f"stopped; what has finished is in {ledger.folder}; go on with the same command and --resume"
        with joined_or_own(config.address):
            order = Order(sweep, ledger.read("sweep.json")["parent"])
            with stopped_at_once(message):
                _log_baselines(sweep, ledger)
            with collected() as signals:
                _try_all(order, ledger, parent, lambda: bool(signals))
            if signals:
                raise Interrupted(message, signals[0])
            with stopped_at_once(message):
                confirmed = _confirmed(order, ledger)
        return _summed_up(sweep, ledger, parent, confirmed)


def _refuse_looks(sweep: Sweep) -> None:
    kind = sweep.config.scheduler.kind
    tried = [sweep.run(sweep.at_random(number), sweep.folder, 0).model for number in range(TRIED)]
    if sweep.config.looks > 1 and any(models.is_solved(models.resolved(model, True)) for model in tried):
        raise UserError(
            f"{sweep.file}: scheduler.kind={kind} stops trainings half-way, and model.form=full is solved in one step; "
            "set scheduler.kind=none, or model.form=bilinear"
        )
    if sweep.config.looks > 1 and sweep.base.workers is not None:
        raise UserError(
            f"{sweep.file}: scheduler.kind={kind} is for trials of one process each; set scheduler.kind=none, or leave "
            "out the run's workers"
        )


@contextmanager
def _tracked(sweep: Sweep, ledger: Ledger) -> Iterator[Tracker]:
    """The sweep's own run in MLflow; when the block ends, no run of the sweep is left open."""
    about = ledger.read("sweep.json")
    Path(sweep.base.runs).mkdir(parents=True, exist_ok=True)  # MLflow's database is there, if no server is named
    parent = open_parent(sweep.tracking, ledger.folder.parent, sweep.config.name, about.get("run_id", ""))
    ledger.keep("sweep.json", about | {"run_id": parent.run_id, "parent": about.get("parent") or reference(parent)})
    definitions = {objective.name: objective.definition for objective in sweep.config.objectives}
    parent.log_settings(sweep.config.model_dump(mode="json") | {"definitions": definitions})
    parent.log_dataset(sweep.base.store.rstrip("/").rpartition("/")[2], about["store_digest"], sweep.base.store)
    with closed_at_end(parent):
        try:
            yield parent
        finally:
            _end_open_runs(sweep, ledger)


def _end_open_runs(sweep: Sweep, ledger: Ledger) -> None:
    """Close what processes that were ended at once have left open in MLflow."""
    for file in sorted(ledger.folder.glob("*/**/seed-*/tracking.json")):
        about = json.loads(file.read_text())
        if about["status"] == "RUNNING" and about["run_id"]:
            end_if_open(validate(TrackingConfig, about["config"], file), file.parent.parent, about["run_id"], "KILLED")
            with written_aside(file, overwrite=True) as aside:
                aside.write_text(json.dumps(about | {"status": "KILLED"}, indent=1))


def _log_baselines(sweep: Sweep, ledger: Ledger) -> None:
    """What needs no training is worth; once."""
    if ledger.read(results.BASELINES) is None:
        ledger.keep(results.BASELINES, baseline(sweep.config.objectives, sweep.base))


def _try_all(order: Order, ledger: Ledger, parent: Tracker, is_asked_to_stop: Asked) -> None:
    """Run the trials that are left, within what is left of the time, or until somebody wants to stop."""
    sweep, plan = order.sweep, plan_of(order.sweep, ledger)
    hours = sweep.config.budget.hours
    seconds = None if hours is None else hours * HOUR - ledger.seconds_used()
    ledger.begin_session()
    if plan.left == 0 or (seconds is not None and seconds <= 0):
        logger.info("no trial is left to run%s", "" if plan.left == 0 else f"; the {hours:g} hours are used up")
        return
    n_before = sum(trial.is_over for trial in ledger.trials())
    logger.info("%s: %s", sweep.config.name, described(sweep, ledger))
    with _bar(sweep, ledger) as show:

        def heard(number: int, is_over: bool) -> None:
            ledger.sign_of_life()
            trial = ledger.trial(number)
            if is_over and trial.is_over:
                for name in trial.values:
                    parent.log_metrics(number, {name: trial.mean(name)})
                show()

        tuned(order, plan, heard, seconds, is_asked_to_stop)
    ledger.sign_of_life()
    if is_asked_to_stop():
        return
    for trial in ledger.trials():  # the time was up
        ledger.end(trial.number, "stopped", "the time of the sweep was up")
    logger.info("%d trials, %d of them before", sum(trial.is_over for trial in ledger.trials()), n_before)


def described(sweep: Sweep, ledger: Ledger) -> str:
    """What is going to be tried, in words."""
    config, n = sweep.config, sweep.n_trials
    begun = len(ledger.trials())
    how_many = f"{n} trials" if n is not None else f"trials for {config.budget.hours:g} hours"
    gone = f" ({begun} begun already)" if begun else ""
    kind = "" if config.scheduler.kind == "none" else f", {config.scheduler.kind}"
    return (
        f"{how_many}{gone} of {config.replicates} replicates, {config.search} search{kind}, {concurrent(sweep)} at a "
        f"time; {config.goal.name} decides: {config.goal.definition}"
    )


@contextmanager
def _bar(sweep: Sweep, ledger: Ledger) -> Iterator[Callable[[], None]]:
    """A progress bar over the trials; yields what moves it."""
    goal = sweep.config.goal
    with bar("best {task.fields[best]}") as progress:
        task = progress.add_task("sweep", total=sweep.n_trials, best="-")

        def show() -> None:
            trials = [trial for trial in ledger.trials() if trial.is_over]
            best = results.best_of(trials, goal)
            said = f"{goal.name} {best.mean(goal.name):.4g} (trial {best.number})" if best else "-"
            progress.update(task, completed=len(trials), best=said)

        show()
        yield show


def _confirmed(order: Order, ledger: Ledger) -> Confirmation | None:
    best = results.best_of(ledger.trials(), order.sweep.config.goal)
    if best is None:
        raise UserError(_why_none(ledger))
    return confirm(order, best) if order.sweep.config.confirm else None


def _why_none(ledger: Ledger) -> str:
    trials = ledger.trials()
    failed = [trial for trial in trials if trial.status == "failed"]
    why = f"; trial {failed[0].number}: {failed[0].error}" if failed else ""
    return f"{ledger.folder}: none of {len(trials)} trials has finished{why}"


def _summed_up(sweep: Sweep, ledger: Ledger, parent: Tracker, confirmed: Confirmation | None) -> SweepSummary:
    """Write tables, figures and the text, and log them."""
    files = results.written(sweep, ledger, confirmed)
    text = results.rendered(sweep, ledger, confirmed)
    (ledger.folder / results.SUMMARY).write_text(text)
    for file in [*files, ledger.folder / results.SUMMARY]:
        parent.log_file(file)
    return SweepSummary(ledger.folder, "\n".join([text.rstrip(), *parent.where()]) + "\n")
