"""The benchmark file: which methods, on which data sets, over which seeds, and what is shown of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from grndist.config import Config, ConfigError, Tree, merge, read_tree, validate
from grndist.data.ingest import IngestConfig
from grndist.data.selection.cell_filters import CellsConfig
from grndist.data.selection.gene_filters import GenesConfig
from grndist.data.simulate import SimulationConfig
from grndist.evaluation.baselines import METHODS
from grndist.runs.config import RunConfig, run_of
from grndist.storage import is_remote
from grndist.tracking import TrackingConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]*")
SHOWN = {
    "auprc_ratio": "AUPRC ratio",
    "epr": "EPR",
    "auprc": "AUPRC",
    "mean_wasserstein": "mean Wasserstein distance",
    "rank_sum_precision": "rank-sum precision",
    "seconds": "seconds",
}
Shown = Literal["auprc_ratio", "epr", "auprc", "mean_wasserstein", "rank_sum_precision", "seconds"]


class InterventionsConfig(Config):
    """Edges are tested on cells that no method has seen, as many of every method."""

    ks: tuple[Annotated[int, Field(gt=0)], ...] = Field((30, 100, 300), min_length=1, description="numbers of edges")
    split: Literal["validation", "test"] = Field(
        "test", description="part of the store's split to test on; methods are given cells.split=[train]"
    )


class _DataSet(Config):
    """What every kind of data set has. Relative paths are below the benchmark's `data`."""

    references: dict[str, Path] = Field({}, description="networks to compare with, by a name")
    lineage: Literal["dazzle", "beeline"] = Field("beeline", description="whose definitions are shown; both are kept")
    all_pairs: bool = Field(False, description="BEELINE over all ordered pairs of the reference's genes")
    interventions: InterventionsConfig | None = None
    cells: CellsConfig = CellsConfig()
    genes: GenesConfig = GenesConfig()
    by_seed: bool = Field(False, description="made anew for every seed, which is the model's, too")

    @model_validator(mode="after")
    def _split_is_the_benchmarks(self) -> "_DataSet":
        if self.interventions is not None and "split" in self.cells.model_fields_set:
            raise ValueError("interventions decide which part of the split is trained on; remove cells.split")
        return self

    @property
    def selection(self) -> Tree:
        """What methods see of the cells and genes, as in a run file."""
        cells = self.cells.model_dump(exclude_unset=True)
        if self.interventions is not None:
            cells["split"] = ["train"]
        return {"cells": cells, "genes": self.genes.model_dump(exclude_unset=True)}

    @property
    def files(self) -> list[Path]:
        """What has to be there beside its references."""
        return []


class StoreData(_DataSet):
    """A store that is there."""

    kind: Literal["store"] = "store"
    store: str = Field(min_length=1, description="a path or URL")
    by_seed: Literal[False] = False


class FilesData(_DataSet):
    """Count matrices to ingest; with by_seed the split of the cells is another one for every seed."""

    kind: Literal["files"] = "files"
    sources: tuple[Path, ...] = Field(min_length=1)
    ingest: IngestConfig = IngestConfig()

    @property
    def files(self) -> list[Path]:
        """The matrices, and the table of cells."""
        return [*self.sources, *([self.ingest.cells_table] if self.ingest.cells_table else [])]


class SimulationData(_DataSet):
    """A screen that is simulated; its own network is the reference "truth"."""

    kind: Literal["simulation"] = "simulation"
    simulation: SimulationConfig = SimulationConfig()
    by_seed: bool = True


class GeneNetWeaverData(_DataSet):
    """DREAM4's format: genes in rows, conditions called wt, G1(-/-) and G1(+/-); time series are left out."""

    kind: Literal["gene_net_weaver"] = "gene_net_weaver"
    expression: Path

    @property
    def files(self) -> list[Path]:
        """The table."""
        return [self.expression]


class SergioData(_DataSet):
    """SERGIO's noise-free levels (npz: X [cells, genes], gene_ids), from which counts are drawn."""

    kind: Literal["sergio"] = "sergio"
    levels: Path
    counts_per_cell: float = Field(60.0, gt=0, description="mean of the Poisson counts of a cell, all genes together")
    by_seed: bool = True

    @property
    def files(self) -> list[Path]:
        """The levels."""
        return [self.levels]


AnyDataSet = StoreData | FilesData | SimulationData | GeneNetWeaverData | SergioData
DataSet = Annotated[AnyDataSet, Field(discriminator="kind")]


def _spelled_out(given: Any) -> Any:
    return {"baseline": given} if isinstance(given, str) else given


class MethodConfig(Config):
    """A baseline, by its name, or a run."""

    baseline: str | None = Field(None, description="one of those of `grndist baseline`")
    run_file: Path | None = None
    run: dict[str, Any] | None = Field(None, description="settings of a run, e.g. {preset: dazzle}; over run_file's")
    overrides: dict[str, dict[str, Any]] = Field({}, description="data set -> settings of the run that differ there")
    skip: dict[str, str] = Field({}, description="data set -> why the method is not tried there")

    @field_validator("baseline")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in METHODS:
            raise ValueError(f"there is no such baseline; choose one of {', '.join(METHODS)}")
        return name

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "MethodConfig":
        if (self.baseline is None) == (self.run is None and self.run_file is None):
            raise ValueError("give a baseline, or a run (run, run_file, or both)")
        if self.baseline is not None and self.overrides:
            raise ValueError("a baseline has no settings; remove its overrides")
        return self


Method = Annotated[MethodConfig, BeforeValidator(_spelled_out)]


class BenchmarkConfig(Config):
    """Everything of a benchmark."""

    out: Path = Field(Path("benchmark"), description="folder of the cells, the tables and the figure")
    data: Path = Field(Path(), description="folder that relative paths of data sets are below")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    methods: dict[str, Method] = Field(min_length=1)
    data_sets: dict[str, DataSet] = Field(min_length=1)
    tracking: TrackingConfig = TrackingConfig()
    show: tuple[Shown, ...] = Field(
        ("auprc_ratio", "epr", "mean_wasserstein", "seconds"), min_length=1, description="measures of the tables"
    )

    @field_validator("methods", "data_sets")
    @classmethod
    def _names_are_folders(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not NAME.fullmatch(name):
                raise ValueError(f"the name {name!r} also names a folder; use letters, digits, spaces and . _ + ( ) -")
        return named

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    @model_validator(mode="after")
    def _data_sets_are_known(self) -> "BenchmarkConfig":
        for name, method in self.methods.items():
            for other in (*method.overrides, *method.skip):
                if other not in self.data_sets:
                    raise ValueError(
                        f"methods.{name} names the data set {other!r}, which is not among {', '.join(self.data_sets)}"
                    )
        for name, data in self.data_sets.items():
            if not (data.references or data.interventions or isinstance(data, SimulationData)):
                raise ValueError(f"data_sets.{name} has neither references nor interventions to be scored by")
        return self


def load_benchmark(path: Path, changes: Tree) -> BenchmarkConfig:
    """Read a benchmark file, with changes over it; paths become absolute, and every run of it is looked at.

    Raises:
        ConfigError: the file, one of its runs or a change is not valid, or a file that it names is not there.
    """
    config = _placed(validate(BenchmarkConfig, merge(read_tree(path), changes), path))
    for name, data in config.data_sets.items():
        for file in (*data.files, *data.references.values()):
            if not file.exists():
                raise ConfigError(f"{path}: data_sets.{name}: {file} is not there; say where the data are: data=FOLDER")
    for name, method in config.methods.items():
        for data_set in config.data_sets if method.baseline is None else ():
            run_settings(config, name, data_set, config.seeds[0], "STORE", Path("RUNS"), path)
    return config


def run_settings(
    config: BenchmarkConfig, method: str, data_set: str, seed: int, store: str, runs: Path, place: Path
) -> RunConfig:
    """The run of a method on a data set: one thread, no tracking, and of the data what the benchmark says.

    Raises:
        ConfigError: its settings are not valid.
    """
    asked, data = config.methods[method], config.data_sets[data_set]
    own = {
        "name": "run", "store": store, "runs": str(runs), "tracking": {"kind": "none"}, "workers": None,
        "training": {"seed": seed, "threads": 1},
    }  # fmt: skip
    before = {} if asked.run_file is None else read_tree(asked.run_file)
    tree = merge(before, asked.run or {}, asked.overrides.get(data_set, {}), own, data.selection)
    return run_of(tree, Path(f"{place}: methods.{method} on {data_set}"))


def _placed(config: BenchmarkConfig) -> BenchmarkConfig:
    folder = config.data.absolute()
    data_sets = {name: _with_paths(data, folder) for name, data in config.data_sets.items()}
    methods = {
        name: one.model_copy(update={"run_file": one.run_file and one.run_file.absolute()})
        for name, one in config.methods.items()
    }
    update = {"out": config.out.absolute(), "data": folder, "data_sets": data_sets, "methods": methods}
    return config.model_copy(update=update)


def _with_paths(data: AnyDataSet, folder: Path) -> AnyDataSet:
    return data.model_copy(update=dict(_paths_of(data, folder)))


def _paths_of(data: AnyDataSet, folder: Path) -> Iterator[tuple[str, Any]]:
    """Its fields that hold paths, with absolute ones."""
    yield "references", {name: folder / file for name, file in data.references.items()}
    genes = {name: path and folder / path for name in ("keep", "regulators") for path in [getattr(data.genes, name)]}
    yield "genes", data.genes.model_copy(update={name: path for name, path in genes.items() if path})
    if isinstance(data, StoreData):
        yield "store", data.store if is_remote(data.store) else str(folder / data.store)
    elif isinstance(data, FilesData):
        yield "sources", tuple(folder / file for file in data.sources)
        table = data.ingest.cells_table
        yield "ingest", data.ingest.model_copy(update={"cells_table": table and folder / table})
    elif isinstance(data, GeneNetWeaverData):
        yield "expression", folder / data.expression
    elif isinstance(data, SergioData):
        yield "levels", folder / data.levels
