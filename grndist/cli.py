"""The command line: one function per stage. Parse, call, print; no logic lives here.

The only module that imports inside functions, so that `--help` is instant.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from grndist import __version__
from grndist.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

store_app = typer.Typer(no_args_is_help=True, help="Look at a store: info, verify, head.")
app.add_typer(store_app, name="store")

Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there")]


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"grndist {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    """Infer gene regulatory networks from single-cell expression and Perturb-seq.

    simulate or your own data -> ingest -> train -> infer -> evaluate
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("grndist").setLevel(logging.INFO)


@app.command()
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


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(help="h5ad, AnnData Zarr, 10x folder or h5, CSV or TSV; or several")],
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
    from grndist.launch import scheduler as scheduled

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


@store_app.command("info")
def store_info(store: Annotated[str, typer.Argument(help="a store, at a path or URL")]) -> None:
    """Shape, labels, density, size and digest."""
    from grndist.data.store import open_store
    from grndist.data.store.inspect import info

    lines = info(open_store(store))
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:<{width}}  {text}" for name, text in lines))


@store_app.command("verify")
def store_verify(store: Annotated[str, typer.Argument(help="a store, at a path or URL")]) -> None:
    """Read every file and compare it with what was written."""
    from grndist.data.store import REMEDY, StoreError
    from grndist.data.store.inspect import verify

    n_files, damage = verify(store)
    if damage:
        problems = "".join(f"\n  {one.problem}" for one in damage)
        raise StoreError(f"{store}: {len(damage)} of {n_files} files are damaged:{problems}\n{REMEDY}")
    print(f"{store}: all {n_files} files are as they were written")


@store_app.command("head")
def store_head(
    store: Annotated[str, typer.Argument(help="a store, at a path or URL")],
    cells: Annotated[int, typer.Option("-n", min=1, help="number of cells")] = 5,
    genes: Annotated[int, typer.Option(min=0, help="number of genes, those seen most in these cells")] = 6,
) -> None:
    """The first cells as a table."""
    from grndist.data.store import open_store
    from grndist.data.store.inspect import head

    print(head(open_store(store), cells, genes).to_string(float_format="{:.6g}".format))


@app.command()
def train(
    run_file: Annotated[Path, typer.Argument(help="a run file, e.g. configs/dazzle.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="changes to it, e.g. training.epochs=5")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start an existing run anew")] = False,
) -> None:
    """Train one model and leave its checkpoint in the run directory."""
    from grndist.runs import load_run, train_run

    if resume and overwrite:
        raise UserError("give --resume or --overwrite, not both")
    summary = train_run(load_run(run_file, overrides or []), resume, overwrite)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in summary.losses.items()) or "there was no step left"
    print(f"{summary.steps} steps, {summary.seconds:.1f} s, {summary.cells_per_second:,.0f} cells/s; {losses}")
    print(f"checkpoint: {summary.checkpoint}")
    print("\n".join(summary.tracking))
    print(f"\nnext: grndist infer {summary.folder}")


@app.command()
def infer(
    run: Annotated[str, typer.Argument(help="a run directory, at a path or URL")],
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="the k strongest edges; at most 1000 if nothing is said")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0, help="edges of at least this |weight|")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="every edge, which scoring against a large network needs")
    ] = False,
    regulators: Annotated[Path | None, typer.Option(help="only these, of those of the run: a gene a line")] = None,
    targets: Annotated[Path | None, typer.Option(help="only these: a text file, a gene a line")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="parquet, tsv or csv; RUN/edges.parquet if not given")
    ] = None,
    scores: Annotated[str | None, typer.Option(help="write every score too, as a Zarr group NAME.zarr")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the network of a run as a sorted edge list."""
    from grndist.inference import GeneLists, checkpoint_of_run, described_scores, edges_of_run, refuse_scores
    from grndist.networks.io import table_ending, write_edges
    from grndist.runs import tracked
    from grndist.storage import delivered, joined, refuse_taken

    if sum([k is not None, threshold is not None, every]) > 1:
        raise UserError("give one of -k, --threshold and --all")
    path = out or joined(run, "edges.parquet")
    with checkpoint_of_run(run):
        refuse_taken(path, overwrite)
    table_ending(Path(path))
    if scores is not None:
        refuse_scores(scores, overwrite)
    unsaid = k is None and threshold is None and not every
    lists, whole = GeneLists(regulators, targets), None if scores is None else Path(scores)
    edges = edges_of_run(run, k, threshold, 1000 if unsaid else None, lists, whole, overwrite)
    with delivered(path) as file, tracked(run) as tracker:
        write_edges(edges, file, overwrite)
        tracker.log_file(file, "edges")
    print(f"{path}: {len(edges)} edges, {'signed' if edges.signed else 'without signs'}, strongest:")
    print(edges.table.head(5).to_string(index=False, float_format="{:.6g}".format))
    if whole is not None:
        print(f"{scores}: {described_scores(whole)}")
    print(f"\nnext: grndist evaluate {path} --reference NETWORK.tsv")


@app.command()
def evaluate(
    edges: Annotated[str, typer.Argument(help="an edge list, at a path or URL")],
    reference: Annotated[Path, typer.Option(help="the network to compare with")],
    store: Annotated[str | None, typer.Option(help="score absolute correlation on this store beside it")] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="BEELINE over all pairs of reference genes")] = False,
    out: Annotated[str | None, typer.Option("--out", "-o", help="JSON; beside EDGES if not given")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the random baseline")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Score an edge list against a reference network, beside baselines."""
    from grndist.data.store import open_store
    from grndist.evaluation.evaluate import evaluate as run
    from grndist.evaluation.evaluate import expression_of
    from grndist.evaluation.references import read_reference
    from grndist.networks.io import read_edges
    from grndist.runs import tracked
    from grndist.storage import delivered, fetched, joined, refuse_taken

    folder, _, name = edges.rpartition("/")
    path = out or joined(folder or ".", f"{name.split('.')[0]}.{reference.name.split('.')[0]}.scores.json")
    refuse_taken(path, overwrite)
    with fetched(edges) as file:
        network = read_edges(file)
    expression = None if store is None else expression_of(open_store(store))
    scores = run(network, read_reference(reference), expression, all_pairs, seed, edges)
    with delivered(path) as file:
        scores.write(file, overwrite)
    print(scores.render(), end="")
    print(f"scores: {path}")
    if "run" in network.origin:
        with tracked(network.origin["run"]) as tracker:
            tracker.log_scores(scores.flat())


@app.command()
def embeddings(
    run: Annotated[str, typer.Argument(help="a run directory, at a path or URL")],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="parquet, tsv, csv, or h5ad (varm); RUN/embeddings.parquet if not given"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the gene embeddings of a run as a table."""
    from grndist.inference import checkpoint_of_run, embeddings_of_run, refuse_ending, write_embeddings
    from grndist.storage import delivered, joined, refuse_taken

    path = out or joined(run, "embeddings.parquet")
    with checkpoint_of_run(run):
        refuse_taken(path, overwrite)
    refuse_ending(path)
    found = embeddings_of_run(run)
    with delivered(path) as file:
        write_embeddings(found, file, overwrite)
    shapes = ", ".join(f"{role} of width {values.shape[1]}" for role, values in found.by_role.items())
    print(f"{path}: {len(found.genes)} genes, {shapes}")


@app.command()
def neighbours(
    run: Annotated[str, typer.Argument(help="a run directory, at a path or URL")],
    gene: Annotated[str, typer.Argument(help="a gene of the panel")],
    number: Annotated[int, typer.Option("-n", min=1, help="how many genes")] = 10,
    role: Annotated[
        str | None, typer.Option("--as", help="regulator or target, where a model has an embedding of each")
    ] = None,
) -> None:
    """The genes nearest to one by the cosine of their embeddings."""
    from grndist.inference import embeddings_of_run, nearest

    table = nearest(embeddings_of_run(run), gene, number, role)
    print(table.to_string(index=False, float_format="{:.3f}".format))


def entry() -> None:
    """The `grndist` program: a mistake of the user's is one message, not a traceback."""
    # Idle threads sleep instead of spinning, which pays where another process wants the cores (docs/experiments.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        print(f"grndist: {error}", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_status", 2)) from None
    except OSError as error:  # no permission, no space, a disk that went away: the machine's, not a bug
        print(f"grndist: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    entry()
