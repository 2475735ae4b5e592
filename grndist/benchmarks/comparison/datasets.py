"""From a data set of the benchmark file to a store, its references and, for interventions, an effect atlas."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grndist.benchmarks.comparison.config import (
    AnyDataSet,
    BenchmarkConfig,
    FilesData,
    GeneNetWeaverData,
    SergioData,
    SimulationData,
    StoreData,
)
from grndist.benchmarks.comparison.formats import store_of_gene_net_weaver, store_of_sergio
from grndist.data.ingest import ingest_files
from grndist.data.selection import SelectionConfig, select
from grndist.data.simulate import simulate
from grndist.data.simulation_file import network_path, write_simulation
from grndist.data.store import open_store
from grndist.evaluation.interventional import write_atlas
from grndist.files import write_whole
from grndist.progress import track

TRUTH = "truth"  # the reference of simulated data


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready."""

    store: str
    digest: str  # of the store and of all else that scores depend on
    references: Mapping[str, Path]
    atlas: Path | None  # of the cells to test on


def data_seed(data: AnyDataSet, seed: int) -> int | None:
    """The seed that the data of a cell are made with; None where they are the same for all seeds."""
    return seed if data.by_seed else None


def prepare(config: BenchmarkConfig) -> dict[tuple[str, int | None], Prepared]:
    """All data sets of a benchmark, made where they are not there yet; by name and data seed.

    Raises:
        UserError: one cannot be made.
    """
    wanted = {(name, data_seed(data, seed)) for seed in config.seeds for name, data in config.data_sets.items()}
    order = sorted(wanted, key=lambda one: (list(config.data_sets).index(one[0]), -1 if one[1] is None else one[1]))
    return {
        (name, seed): _prepared(config.data_sets[name], seed, _folder(config.out, name, seed))
        for name, seed in track(order, "data sets", len(order))
    }


def _folder(out: Path, name: str, seed: int | None) -> Path:
    return out / "data" / name / ("all" if seed is None else f"seed{seed}")


def _prepared(data: AnyDataSet, seed: int | None, folder: Path) -> Prepared:
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.dumps({"data": data.model_dump(mode="json"), "seed": seed, "files": _stamps(data)}, sort_keys=True)
    marker, atlas = folder / "made.json", folder / "effects.zarr" if data.interventions else None
    store = data.store if isinstance(data, StoreData) else str(folder / "store.zarr")
    if not (marker.exists() and marker.read_text(encoding="utf-8") == asked):
        marker.unlink(missing_ok=True)
        _make(data, seed, folder)
        if atlas is not None:
            _write_atlas(data, store, atlas)
        write_whole(marker, [asked.encode()])
    references = dict(data.references)
    if isinstance(data, SimulationData):
        references = {TRUTH: network_path(folder / "simulated.h5ad"), **references}
    found = hashlib.sha256(open_store(store).digest.encode())
    for name, file in references.items():
        found.update(name.encode() + file.read_bytes())
    found.update(json.dumps(_of_scores(data), sort_keys=True).encode())
    return Prepared(store, found.hexdigest(), references, atlas)


def _of_scores(data: AnyDataSet) -> dict[str, Any]:
    return data.model_dump(mode="json", include={"all_pairs", "interventions", "cells", "genes"})


def _stamps(data: AnyDataSet) -> list[list[Any]]:
    """What tells whether its files are those of before: size and time of change."""
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in data.files]


def _make(data: AnyDataSet, seed: int | None, folder: Path) -> None:
    store = folder / "store.zarr"
    if isinstance(data, FilesData):
        split = {} if seed is None else {"split_seed": seed}
        ingest_files(data.sources, store, data.ingest.model_copy(update=split), overwrite=True)
    elif isinstance(data, SimulationData):
        own = data.simulation if seed is None else data.simulation.model_copy(update={"seed": seed})
        file = folder / "simulated.h5ad"
        write_simulation(simulate(own), file, overwrite=True)
        ingest_files([file], store, FilesData(sources=(file,)).ingest, overwrite=True)
        file.unlink()
    elif isinstance(data, GeneNetWeaverData):
        store_of_gene_net_weaver(data.expression, store)
    elif isinstance(data, SergioData):
        store_of_sergio(data.levels, store, data.counts_per_cell, seed or 0)


def _write_atlas(data: AnyDataSet, store: str, path: Path) -> None:
    """Every effect in the cells that are held out."""
    assert data.interventions is not None
    cells = data.cells.model_copy(update={"split": (data.interventions.split,)})
    view = select(open_store(store), SelectionConfig(cells=cells, genes=data.genes))
    write_atlas(path, view, overwrite=True)
