"""The commands that make data and look at it: simulate, ingest, and those of `grndist store`."""

from pathlib import Path
from typing import Annotated

import typer

from grndist.cli.options import Overwrite
from grndist.errors import UserError


def simulate(
    out: Annotated[Path, typer.Argument(help="the h5ad file to write; its network goes beside it")],
    cells: Annotated[int, typer.Option(help="number of cells")] = 3000,
    genes: Annotated[int, typer.Option(help="number of genes")] = 200,
    regulators: Annotated[int, typer.Option(help="genes that regulate others")] = 40,
    perturbed_share: Annotated[float, typer.Option(help="share of the regulators that are perturbed")] = 0.5,
    decoy_share: Annotated[
        float, typer.Option(help="perturbed genes that regulate nothing, per perturbed regulator")
    ] = 0.5,
    control_share: Annotated[float, typer.Option(help="share of control cells")] = 0.3,
    difficulty: Annotated[str, typer.Option(help="easy, realistic or hard")] = "realistic",
    indirect_effects: Annotated[str, typer.Option(help="weak or strong: regulators in a cascade")] = "weak",
    library_effects: Annotated[
        float, typer.Option(help="sd of the log change of library size by each perturbed gene")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="same seed, same file")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make a Perturb-seq data set with a known network (docs/simulator.md has the equations)."""
    from grndist.config import validate
    from grndist.data.simulate import SimulationConfig
    from grndist.data.simulate import simulate as run
    from grndist.data.simulation_file import check_output, write_simulation

    check_output(out, overwrite)
    settings = {
        "cells": cells, "genes": genes, "regulators": regulators, "perturbed_share": perturbed_share,
        "decoy_share": decoy_share, "control_share": control_share, "difficulty": difficulty,
        "indirect_effects": indirect_effects, "library_effects": library_effects, "seed": seed,
    }  # fmt: skip
    simulation = run(validate(SimulationConfig, settings, "grndist simulate"))
    network = write_simulation(simulation, out, overwrite)
    zeros = 1 - simulation.counts.nnz / (cells * genes)
    print(f"{out}: {cells} cells x {genes} genes, {100 * zeros:.1f} % zeros")
    print(f"{network}: {len(simulation.network)} edges")
    print(f"\nnext: grndist ingest {out} {out.with_suffix('.zarr')}")


def ingest(
    sources: Annotated[
        list[Path], typer.Argument(help="h5ad, AnnData Zarr, 10x folder or h5, BEELINE folder, CSV or TSV; or several")
    ],
    store: Annotated[str, typer.Argument(help="the Zarr store to write: a path, or a URL (s3://, gs://, ...)")],
    layer: Annotated[str | None, typer.Option(help="h5ad, Zarr: take this layer instead of X")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="h5ad: take .raw instead of X")] = False,
    genes_in_rows: Annotated[bool, typer.Option("--genes-in-rows", help="CSV/TSV: rows are genes")] = False,
    cells_in_rows: Annotated[bool, typer.Option("--cells-in-rows", help="CSV/TSV: rows are cells")] = False,
    gene_column: Annotated[
        str | None, typer.Option(help="column of var that names the genes, e.g. where labels are symbols")
    ] = None,
    make_genes_unique: Annotated[
        bool, typer.Option("--make-genes-unique", help="suffix repeated gene names with -1, -2")
    ] = False,
    perturbation_column: Annotated[
        str | None, typer.Option(help="column of obs; found by itself under common names")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="label of control cells; found by itself under common names")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="keep cells for which this holds, e.g. 'grna_max_frac > 0.9'")
    ] = None,
    cells_table: Annotated[Path | None, typer.Option(help="CSV/TSV with a row per cell, joined to obs by name")] = None,
    state: Annotated[str, typer.Option(help="what the values are: auto, counts, log1p or continuous")] = "auto",
    genes: Annotated[
        str, typer.Option(help="of several sources: intersection or union of their genes")
    ] = "intersection",
    prefix_cells: Annotated[
        bool, typer.Option("--prefix-cells", help="call cells FILE:cell, where several sources share names")
    ] = False,
    split: Annotated[str, typer.Option(help="shares of train, validation and test cells")] = "0.8,0.1,0.1",
    split_seed: Annotated[int, typer.Option(help="of the choice of train, validation and test cells")] = 0,
    shuffle_seed: Annotated[int, typer.Option(help="of the order of cells in the store")] = 0,
    profile: Annotated[str, typer.Option(help="train (streams fast) or archive (half the size)")] = "train",
    threads: Annotated[int | None, typer.Option(min=1, help="all CPUs of this process if not given")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="run on a cluster: tcp://HOST:PORT of a Dask scheduler, or ray")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="folder to work in; beside the store if not given")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Bring count matrices into a store that training streams from; after a kill, the same command goes on."""
    from grndist.config import validate
    from grndist.data.ingest import IngestConfig, ingest_files
    from grndist.launch.tasks import scheduler as scheduled

    if genes_in_rows and cells_in_rows:
        raise UserError("give --genes-in-rows or --cells-in-rows, not both")
    orientation = "genes_in_rows" if genes_in_rows else "cells_in_rows" if cells_in_rows else None
    shares = split.split(",")
    if len(shares) != 3:
        raise UserError(f"--split {split}: three shares that sum to 1 were expected, e.g. 0.8,0.1,0.1")
    settings = {
        "layer": layer, "raw": raw, "orientation": orientation, "gene_column": gene_column,
        "make_genes_unique": make_genes_unique, "perturbation_column": perturbation_column, "control": control,
        "where": where, "cells_table": cells_table, "state": state, "genes": genes, "prefix_cells": prefix_cells,
        "split": shares, "split_seed": split_seed, "shuffle_seed": shuffle_seed, "profile": profile,
    }  # fmt: skip
    config = validate(IngestConfig, settings, "grndist ingest")
    report = ingest_files(sources, store, config, overwrite, work, scheduled(scheduler, threads))
    print("\n".join(report.lines))
    print(f"look at it: grndist store info {store}")
    print(f"\nnext: grndist train RUN.yaml store={store}   (configs/ has examples)")


def store_info(store: Annotated[str, typer.Argument(help="a store, at a path or URL")]) -> None:
    """Shape, labels, density, size and digest."""
    from grndist.data.store import open_store
    from grndist.data.store.inspect import info

    lines = info(open_store(store))
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in lines))


def store_verify(store: Annotated[str, typer.Argument(help="a store, at a path or URL")]) -> None:
    """Read every file and compare it with what was written."""
    from grndist.data.store import REMEDY, StoreError
    from grndist.data.store.inspect import verify

    n_files, damage = verify(store)
    if damage:
        problems = "".join(f"\n  {one.problem}" for one in damage)
        raise StoreError(f"{store}: {len(damage)} of {n_files} files are damaged:{problems}\n{REMEDY}")
    print(f"{store}: all {n_files} files are as they were written")


def store_head(
    store: Annotated[str, typer.Argument(help="a store, at a path or URL")],
    cells: Annotated[int, typer.Option("-n", min=1, help="number of cells")] = 5,
    genes: Annotated[int, typer.Option(min=0, help="number of genes, those seen most in these cells")] = 6,
) -> None:
    """The first cells as a table."""
    from grndist.data.store import open_store
    from grndist.data.store.inspect import head

    print(head(open_store(store), cells, genes).to_string(float_format="{:.6g}".format))
