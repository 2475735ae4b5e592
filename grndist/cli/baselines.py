"""The command that makes a network without a model of ours: baseline."""

from pathlib import Path
from typing import Annotated

import typer

from grndist.cli.options import Overwrite
from grndist.errors import UserError


def baseline(
    method: Annotated[
        str,
        typer.Argument(
            help="random, correlation, partial_correlation, mean_difference_log, mean_difference_z, "
            "mean_difference_odds, blend, pidc, genie3 or grnboost2"
        ),
    ],
    store: Annotated[str, typer.Argument(help="a store, at a path or URL")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="which cells and genes, as in a run, e.g. genes.highly_variable=1000"),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="parquet, tsv or csv; METHOD.parquet if not given")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="the k strongest edges; all if not given")] = None,
    regulators: Annotated[Path | None, typer.Option(help="only these: a text file, a gene a line")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of random, genie3 and grnboost2")] = 0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="of this machine, for genie3 and grnboost2; one a CPU if not given")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="genie3 and grnboost2 on this Ray cluster (HOST:6379), or local")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the network of a method to compare with; genie3 and grnboost2 go on after a kill if called again."""
    from grndist.config import parse_overrides, validate
    from grndist.data.selection import SelectionConfig, select
    from grndist.data.selection.gene_names import read_gene_list
    from grndist.data.store import open_store
    from grndist.evaluation.baselines import baseline_edges, parts_of, refuse_unknown
    from grndist.evaluation.baselines import processes as here
    from grndist.files import remove
    from grndist.launch.connection import refuse_unusable
    from grndist.launch.tasks import baseline_tasks
    from grndist.networks.io import table_ending, write_edges
    from grndist.runs.stopping import stopped_at_once
    from grndist.storage import delivered, refuse_taken

    refuse_unknown(method)
    if processes is not None and address is not None:
        raise UserError(f"--processes {processes} is for this machine and --address {address} for a cluster; give one")
    if address is not None:
        refuse_unusable(address)
    path = out or f"{method}.parquet"
    table_ending(Path(path))
    refuse_taken(path, overwrite)
    wanted = None if regulators is None else read_gene_list(regulators, "--regulators")
    config = validate(SelectionConfig, parse_overrides(overrides or []), "grndist baseline")
    view = select(open_store(store), config)
    print("\n".join([*view.lines, f"{view.n_cells:,} cells x {view.n_genes:,} genes"]))
    run_tasks = here(processes) if address is None else baseline_tasks(address)
    folder = parts_of(method, path)
    kept = f"; what is done is in {folder}, and the same command goes on there" if folder else ""
    with stopped_at_once(f"stopped{kept}"):
        edges = baseline_edges(view, method, k=k, regulators=wanted, seed=seed, run_tasks=run_tasks, folder=folder)
    with delivered(path) as file:
        write_edges(edges, file, overwrite)
    if folder is not None:
        remove(folder)
    print(f"{path}: {len(edges):,} edges by {method}, {'signed' if edges.signed else 'without signs'}, strongest:")
    print(edges.table.head(5).to_string(index=False, float_format="{:.6g}".format))
    print(f"\nnext: grndist evaluate {path} --reference NETWORK.tsv")
