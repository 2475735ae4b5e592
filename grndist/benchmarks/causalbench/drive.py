"""A comparison from its data to its summary: case after case, everything kept in a folder."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from grndist.benchmarks.causalbench import results
from grndist.benchmarks.causalbench.case import Bench, Case, bench_of, outcome_of
from grndist.benchmarks.causalbench.config import CasesError, RegimesConfig
from grndist.benchmarks.causalbench.contenders import Contender, refuse_own_choice
from grndist.benchmarks.causalbench.ledger import Ledger, opened, refuse
from grndist.data.store import open_store
from grndist.evaluation.interventional import InterventionError, at
from grndist.runs.folder import closed_at_end
from grndist.runs.stopping import stopped_at_once
from grndist.storage import is_remote
from grndist.tracking import Tracker, open_parent, reference

logger = logging.getLogger(__name__)

PARENT = "causalbench"  # the comparison's own run, in MLflow and in the run root


@dataclass(frozen=True)
class RegimesSummary:
    """What a finished comparison says at the end."""

    folder: Path
    text: str


def run_causalbench(
    config: RegimesConfig, models: Sequence[Contender], out: str, resume: bool = False, address: str = ""
) -> RegimesSummary:
    """Train and test every model on every fraction with every seed; cases that are done are not done again.

    Args:
        config: the data, fractions and seeds.
        models: who is compared.
        out: a folder for everything.
        resume: go on with what is there, or add to it.
        address: of the Ray cluster that does the targets of long baselines; empty: processes here. Models say for
            themselves where they are trained.

    Raises:
        UserError: the store, a model's settings or the folder do not allow it.
        Interrupted: Ctrl-C or SIGTERM; what is done stays.
    """
    if is_remote(out):
        raise CasesError(f"--out {out}: a folder of this machine, or one that every node mounts, was expected, no URL")
    for one in models:
        refuse_own_choice(one, config)
    folder = Path(out).absolute()
    refuse(folder, resume)
    digest = open_store(config.store).digest
    cases = [Case(one, share, seed) for seed in config.seeds for share in config.fractions for one in models]
    left = [case for case in cases if not Ledger(folder).is_done(case)]
    bench = bench_of(config) if left else None
    with opened(folder, config, models, digest, resume) as ledger, _tracked(config, ledger) as parent:
        message = f"stopped; what is done is in {folder}; go on with the same command and --resume"
        with stopped_at_once(message):
            logger.info("causalbench: %d cases, %d of them done before", len(cases), len(cases) - len(left))
            if bench is not None:
                _do(left, bench, ledger, reference(parent), address)
            cases.sort(key=lambda case: [one.name for one in models].index(case.contender.name))
            files, scores = results.written(ledger, config, cases)
        for file in files:
            parent.log_file(file)
        parent.log_scores(scores)
        text = (folder / results.SUMMARY).read_text().rstrip()
        return RegimesSummary(folder, "\n".join([text, *parent.where()]) + "\n")


@contextmanager
def _tracked(config: RegimesConfig, ledger: Ledger) -> Iterator[Tracker]:
    """The comparison's own run in MLflow, above those of its trainings."""
    about = ledger.about()
    ledger.runs.mkdir(parents=True, exist_ok=True)  # MLflow's database is there, if no server is named
    parent = open_parent(config.tracking, ledger.runs, PARENT, about.get("run_id", ""))
    ledger.note(run_id=parent.run_id)
    parent.log_settings(config.model_dump(mode="json"))
    parent.log_dataset(config.store.rstrip("/").rpartition("/")[2], about["store_digest"], config.store)
    with closed_at_end(parent):
        yield parent


def _do(left: Sequence[Case], bench: Bench, ledger: Ledger, parent: str, address: str) -> None:
    """Do cases, with a line for each."""
    view = bench.view
    logger.info("%s", "\n".join([*view.lines, _tested(len(bench.regulators), view.n_cells, view.n_genes)]))
    for number, case in enumerate(left, 1):
        logger.info("causalbench: case %d of %d: %s", number, len(left), case.name)
        outcome = outcome_of(case, bench, ledger.runs, parent, address)
        ledger.keep(case, outcome)
        logger.info("causalbench: %s: %s", case.name, _said(outcome.curve, bench.config.k, outcome.seconds))


def _tested(regulators: int, n_cells: int, n_genes: int) -> str:
    return (
        f"tested on {n_cells:,} held-out cells: {regulators:,} perturbed genes x {n_genes:,} targets; models are "
        "compared at one number of edges"
    )


def _said(table: pd.DataFrame, k: int, seconds: float) -> str:
    try:
        row = at(table, k)
    except InterventionError as error:
        return f"{error} ({seconds:.1f} s)"
    return (
        f"at {k:,} edges mean Wasserstein {row['mean_wasserstein']:.4f}, rank-sum precision "
        f"{row['rank_sum_precision']:.3f} ({seconds:.1f} s)"
    )
