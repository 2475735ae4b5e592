"""The commands from a store to a network: train, infer, embeddings, neighbours, latent."""

from pathlib import Path
from typing import Annotated

import typer

from grndist.cli.options import Address, Overwrite, Run, Workers, beside, of_workers
from grndist.errors import UserError


def train(
    run_file: Annotated[Path, typer.Argument(help="a run file, e.g. configs/dazzle.yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(help="changes to it, e.g. training.epochs=5")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start an existing run anew")] = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Train one model and leave its checkpoint in the run directory."""
    from grndist.launch.anywhere import train as train_anywhere
    from grndist.runs import load_run

    if resume and overwrite:
        raise UserError("give --resume or --overwrite, not both")
    config = load_run(run_file, [*(overrides or []), *of_workers(workers, address)])
    if config.workers is not None:
        from grndist.launch.connection import refuse_unusable

        refuse_unusable(config.workers.address)
    summary = train_anywhere(config, resume, overwrite)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in summary.losses.items()) or "there was no step left"
    print(f"{summary.steps} steps, {summary.seconds:.1f} s, {summary.cells_per_second:,.0f} cells/s; {losses}")
    print("\n".join([*filter(None, [summary.augmentation]), f"checkpoint: {summary.checkpoint}", *summary.tracking]))
    print(f"\nnext: grndist infer {summary.folder}")


def infer(
    run: Run,
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
    from grndist.inference import GeneLists, described_scores, edges_of_run, refuse_no_run, refuse_scores
    from grndist.networks.io import table_ending, write_edges
    from grndist.runs import tracked
    from grndist.storage import delivered, refuse_taken

    if sum([k is not None, threshold is not None, every]) > 1:
        raise UserError("give one of -k, --threshold and --all")
    path = out or beside(run, "edges.parquet")
    refuse_no_run(run)
    refuse_taken(path, overwrite)
    table_ending(Path(path))
    if scores is not None:
        refuse_scores(scores, overwrite)
    unsaid = k is None and threshold is None and not every
    lists, whole = GeneLists(regulators, targets), None if scores is None else Path(scores)
    edges = edges_of_run(run, k, threshold, 1000 if unsaid else None, lists, whole, overwrite)
    with delivered(path) as file, tracked(run) as tracker:
        write_edges(edges, file, overwrite)
        tracker.log_edges(file, edges.table)
    print(f"{path}: {len(edges)} edges, {'signed' if edges.signed else 'without signs'}, strongest:")
    print(edges.table.head(5).to_string(index=False, float_format="{:.6g}".format))
    if whole is not None:
        print(f"{scores}: {described_scores(whole)}")
    print(f"\nnext: grndist evaluate {path} --reference NETWORK.tsv")


def embeddings(
    run: Run,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="parquet, tsv, csv, or h5ad (varm); RUN/embeddings.parquet if not given"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the gene embeddings of a run as a table."""
    from grndist.inference import embeddings_of_run, refuse_ending, refuse_no_run, write_embeddings
    from grndist.storage import delivered, refuse_taken

    path = out or beside(run, "embeddings.parquet")
    refuse_no_run(run)
    refuse_taken(path, overwrite)
    refuse_ending(path)
    found = embeddings_of_run(run)
    with delivered(path) as file:
        write_embeddings(found, file, overwrite)
    shapes = ", ".join(f"{role} of width {values.shape[1]}" for role, values in found.by_role.items())
    print(f"{path}: {len(found.genes)} genes, {shapes}")


def neighbours(
    run: Run,
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


def latent(
    run: Annotated[
        str,
        typer.Argument(help="a run directory of GRN-VAE, DAZZLE or DeepSEM, at a path or URL, or models:/NAME@ALIAS"),
    ],
    out: Annotated[str | None, typer.Option("--out", "-o", help="h5ad; RUN/latent.h5ad if not given")] = None,
    plot: Annotated[str | None, typer.Option(help="the figure, PNG; beside the h5ad if not given")] = None,
    colour: Annotated[
        str | None, typer.Option(help="column of obs; the perturbation if not given and there are several")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="of z in each cell")] = 3,
    cells: Annotated[
        int | None, typer.Option(min=1, help="so many, drawn at random; all, but at most 10,000, if not given")
    ] = None,
    store: Annotated[str | None, typer.Option(help="where the run's store is now, if it has moved")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the cells, the samples and the layouts")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write mean, deviation and samples of each cell's latent z, and draw UMAPs of them."""
    from grndist.inference import latent as space
    from grndist.inference import refuse_no_run
    from grndist.plots import latent_figure, refuse_ending, write_figure
    from grndist.storage import delivered, refuse_taken

    path = out or beside(run, "latent.h5ad")
    space.refuse_ending(path)
    figure = plot or f"{path.removesuffix(space.H5AD)}.png"
    refuse_ending(figure)
    refuse_no_run(run)
    refuse_taken(path, overwrite)
    refuse_taken(figure, overwrite)
    found = space.latent_of_run(run, space.LatentConfig(samples=samples, cells=cells, colour=colour, seed=seed), store)
    space.add_layouts(found)
    with delivered(path) as file:
        space.write_latent(found, file, overwrite)
    with delivered(figure) as file:
        write_figure(latent_figure(space.places(found), found.obs, colour), file, overwrite)
    print(space.described(found))
    print(f"{path}: z_mean, z_std, z_sample_1 to {samples} and their UMAPs in obsm")
    print(f"\nnext: look at {figure}")
