"""The network of a method on a data set: a baseline's, or that of a run that is trained and thrown away."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from grndist.benchmarks.comparison.config import BenchmarkConfig, run_settings
from grndist.benchmarks.comparison.datasets import Prepared
from grndist.config import validate
from grndist.data.selection import SelectionConfig, select
from grndist.data.store import open_store
from grndist.data.view import View
from grndist.evaluation.baselines import SEEDED, baseline_edges, processes
from grndist.evaluation.interventional import perturbed_genes
from grndist.inference import network_of, strongest_edges
from grndist.networks.edges import EdgeList
from grndist.runs import train_run


@dataclass(frozen=True)
class Cell:
    """What is computed, scored and kept as one."""

    data_set: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method} on {self.data_set}, seed {self.seed}"


def is_seeded(config: BenchmarkConfig, method: str) -> bool:
    """Whether another seed can give another network on the same data."""
    asked = config.methods[method]
    return asked.baseline is None or asked.baseline in SEEDED


def view_of(config: BenchmarkConfig, data_set: str, prepared: Prepared) -> View:
    """The cells and genes that methods see."""
    chosen = validate(SelectionConfig, config.data_sets[data_set].selection, f"data_sets.{data_set}")
    return select(open_store(prepared.store), chosen)


def why_not(config: BenchmarkConfig, cell: Cell, view: View) -> str:
    """Why a method is of no use on a data set; empty if it is."""
    asked = config.methods[cell.method]
    if cell.data_set in asked.skip:
        return asked.skip[cell.data_set]
    needs = asked.baseline is not None and (asked.baseline == "blend" or asked.baseline.startswith("mean_difference"))
    return "no gene is perturbed there" if needs and not perturbed_genes(view) else ""


def tested_regulators(config: BenchmarkConfig, data_set: str, view: View) -> list[str] | None:
    """With interventions the measured genes that are perturbed, which every method can rank; else None, all genes."""
    if config.data_sets[data_set].interventions is None:
        return None
    return [gene for gene in perturbed_genes(view) if gene in view.panel.index]


def network(config: BenchmarkConfig, cell: Cell, prepared: Prepared, view: View, cpus: int) -> EdgeList:
    """Every edge by the method, the best one first.

    Args:
        config: the benchmark.
        cell: which method and seed.
        prepared: the data set.
        view: what of it methods see.
        cpus: processes of a baseline that has tasks; a run has one thread, so that it has one result.

    Raises:
        UserError: the method cannot do it.
    """
    baseline, regulators = config.methods[cell.method].baseline, tested_regulators(config, cell.data_set, view)
    if baseline is not None:
        return baseline_edges(view, baseline, regulators=regulators, seed=cell.seed, run_tasks=processes(cpus))
    with TemporaryDirectory(dir=config.out / "work") as folder:
        place = config.out.name
        run = run_settings(config, cell.method, cell.data_set, cell.seed, prepared.store, Path(folder), Path(place))
        found = network_of(Path(train_run(run).checkpoint))
        return strongest_edges(found if regulators is None else found.limited(regulators))
