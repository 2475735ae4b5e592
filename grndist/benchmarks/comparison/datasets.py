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
SIMULATED, ATLAS, MADE = "simulated.h5ad", "effects.zarr", "made.json"  # in the folder of a data set


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
    for name, seed in track(order, "data sets", len(order)):
        data, folder = config.data_sets[name], _folder(config.out, name, seed)
        if not _is_made(data, seed, folder):
            _make(data, seed, folder)
    return ready(config)


def ready(config: BenchmarkConfig) -> dict[tuple[str, int | None], Prepared]:
    """Those data sets of a benchmark that are made already; by name and data seed.

    Raises:
        UserError: a store is damaged.
    """
    return {
        (name, seed): _prepared(data, _folder(config.out, name, seed))
        for name, data in config.data_sets.items()
        for seed in {data_seed(data, one) for one in config.seeds}
        if _is_made(data, seed, _folder(config.out, name, seed))
    }


def _folder(out: Path, name: str, seed: int | None) -> Path:
    return out / "data" / name / ("all" if seed is None else f"seed{seed}")


def _store_of(data: AnyDataSet, folder: Path) -> str:
    return data.store if isinstance(data, StoreData) else str(folder / "store.zarr")


def _prepared(data: AnyDataSet, folder: Path) -> Prepared:
    store, references = _store_of(data, folder), dict(data.references)
    if isinstance(data, SimulationData):
        references = {TRUTH: network_path(folder / SIMULATED), **references}
    found = hashlib.sha256(open_store(store).digest.encode())
    for name, file in references.items():
        found.update(name.encode() + file.read_bytes())
    found.update(json.dumps(_of_scores(data), sort_keys=True).encode())
    return Prepared(store, found.hexdigest(), references, folder / ATLAS if data.interventions else None)


def _asked(data: AnyDataSet, seed: int | None) -> str:
    """What a data set is made of, in words: its settings, and size and time of change of its files."""
    files = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in data.files]
    return json.dumps({"data": data.model_dump(mode="json"), "seed": seed, "files": files}, sort_keys=True)


def _is_made(data: AnyDataSet, seed: int | None, folder: Path) -> bool:
    """Whether all of it is there, of the same settings and files."""
    marker = folder / MADE
    return marker.exists() and marker.read_text(encoding="utf-8") == _asked(data, seed)


def _of_scores(data: AnyDataSet) -> dict[str, Any]:
    return data.model_dump(mode="json", include={"all_pairs", "interventions", "cells", "genes"})


def _make(data: AnyDataSet, seed: int | None, folder: Path) -> None:
    """The store and the atlas, and at the end the mark that they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE).unlink(missing_ok=True)
    _make_store(data, seed, folder)
    if data.interventions:
        _write_atlas(data, _store_of(data, folder), folder / ATLAS)
    write_whole(folder / MADE, [_asked(data, seed).encode()])


def _make_store(data: AnyDataSet, seed: int | None, folder: Path) -> None:
    store = Path(_store_of(data, folder))
    if isinstance(data, FilesData):
        split = {} if seed is None else {"split_seed": seed}
        ingest_files(data.sources, store, data.ingest.model_copy(update=split), overwrite=True)
    elif isinstance(data, SimulationData):
        own = data.simulation if seed is None else data.simulation.model_copy(update={"seed": seed})
        file = folder / SIMULATED
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
