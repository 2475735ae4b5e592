"""One case: a model, a share of the labels, a seed. Its network is made, and tested on the held-out cells."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from grndist.benchmarks.causalbench.config import CasesError, RegimesConfig
from grndist.benchmarks.causalbench.contenders import Contender, case_name
from grndist.data.selection import SelectionConfig, select
from grndist.data.store import open_store
from grndist.data.view import View
from grndist.evaluation.baselines import BaselineError, RunTasks, baseline_edges
from grndist.evaluation.interventional import Atlas, curve, effects_of, perturbed_genes
from grndist.genes import NON_TARGETING
from grndist.inference import checkpoint_of_run, network_of, strongest_edges
from grndist.launch.anywhere import folder_of, go_on
from grndist.launch.tasks import baseline_tasks
from grndist.networks.edges import EdgeList, edge_list
from grndist.runs import RunConfig


@dataclass(frozen=True)
class Case:
    """One training."""

    contender: Contender
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """What it is called everywhere."""
        return case_name(self.contender.name, self.fraction, self.seed)


@dataclass(frozen=True)
class Outcome:
    """A network, and what the held-out cells say of it."""

    edges: EdgeList  # those among perturbed and measured genes, as many as the largest K needs
    curve: pd.DataFrame  # `evaluation.interventional.curve`
    trained_on: int  # cells
    seconds: float  # to make the network, and
    seconds_scored: float
    reason: str = ""  # why there is no network, where the method says so


@dataclass(eq=False)
class Bench:
    """The data of all cases: held-out cells, and the training cells of the last baseline."""

    config: RegimesConfig
    ks: list[int]
    view: View  # held-out cells
    effects: Atlas  # of all their pairs
    regulators: list[str]  # genes of the panel that are perturbed in held-out cells
    _last: tuple[SelectionConfig, View] | None = field(default=None)

    def training_cells(self, fraction: float, seed: int) -> View:
        """Of a case; those of the last one are kept."""
        wanted = self.config.training_cells(fraction, seed)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, select(open_store(self.config.store), wanted))
        return self._last[1]


def bench_of(config: RegimesConfig) -> Bench:
    """Choose the held-out cells, see whether edges can be tested on them, and test all pairs at once.

    Raises:
        CasesError: there are no controls, no perturbed genes, or fewer pairs than `k`.
        UserError: the store is not as CausalBench needs it.
    """
    view = select(open_store(config.store), config.test_cells)
    labels = {view.label_names[code] for code in np.unique(view.label_of_cell).tolist()}
    if NON_TARGETING not in labels:
        raise CasesError(
            f"{config.store}: none of the {view.n_cells:,} cells of the test split is a control "
            f"({NON_TARGETING!r}), so there is nothing to compare perturbed cells with; name the controls at "
            "ingest (grndist ingest --control), of which CausalBench needs more than 100"
        )
    regulators = [gene for gene in perturbed_genes(view) if gene in view.panel.index]
    possible = len(regulators) * (view.n_genes - 1)
    if possible < config.k:
        raise CasesError(
            f"--k {config.k}: {len(regulators):,} perturbed genes x {view.n_genes:,} targets make {possible:,} edges; "
            "compare at fewer, a small part of them, or every network scores much the same"
        )
    return Bench(config, config.ks(possible), view, effects_of(view), regulators)


def outcome_of(case: Case, bench: Bench, runs: Path, parent: str, address: str) -> Outcome:
    """Make the network of a case, from where its training stands, and test it.

    Args:
        case: which.
        bench: the data.
        runs: where run directories are.
        parent: the benchmark's own run in MLflow.
        address: of the Ray cluster that does the targets of long baselines; empty: processes here.

    Raises:
        UserError: the training, the store or the settings do not allow it.
        Interrupted: a signal has come; the training goes on another time.
    """
    began = time.monotonic()
    if case.contender.tree is None:
        edges, n_cells, reason = _of_baseline(case, bench, baseline_tasks(address) if address else None)
    else:
        run = case.contender.run(bench.config, case.fraction, case.seed, runs, parent)
        edges, n_cells, reason = _of_training(run, bench), bench.training_cells(case.fraction, case.seed).n_cells, ""
    made = time.monotonic()
    table = curve(bench.effects, edges, bench.ks, omission=bench.config.omission)
    return Outcome(edges, table, n_cells, made - began, time.monotonic() - made, reason)


def _of_baseline(case: Case, bench: Bench, run_tasks: RunTasks | None) -> tuple[EdgeList, int, str]:
    view = bench.training_cells(case.fraction, case.seed)
    try:
        edges = baseline_edges(
            view, case.contender.name, k=bench.ks[-1], regulators=bench.regulators, seed=case.seed,
            run_tasks=run_tasks,
        )  # fmt: skip
    except BaselineError as error:  # no gene is perturbed among these cells, say
        return edge_list([], [], [], view.panel.names), view.n_cells, str(error)
    return edges, view.n_cells, ""


def _of_training(run: RunConfig, bench: Bench) -> EdgeList:
    go_on(run)
    with checkpoint_of_run(folder_of(run)) as checkpoint:
        return strongest_edges(network_of(checkpoint).limited(bench.regulators), bench.ks[-1])
