"""The command that compares methods on data sets: benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from grndist.errors import UserError


def benchmark(
    config: Annotated[Path, typer.Argument(help="a benchmark file, e.g. configs/benchmark_quick.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="changes to it, e.g. data=FOLDER out=FOLDER seeds=[0,1]")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="processes that compute, each with one thread; 1 if not given")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="compute on this Ray cluster (HOST:6379), or local; one CPU for each cell")
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="make the table of what has been computed so far, and compute nothing")
    ] = False,
) -> None:
    """Compare methods on data sets over seeds; after an interruption the same command goes on."""
    from grndist.benchmarks.comparison.drive import run_benchmark
    from grndist.config import parse_overrides
    from grndist.launch.connection import refuse_unusable

    if jobs is not None and address is not None:
        raise UserError(f"--jobs {jobs} is for this machine and --address {address} for a cluster; give one")
    if address is not None:
        refuse_unusable(address)
    changes = parse_overrides(overrides or [])
    print(run_benchmark(config, changes, jobs or 1, table, address).text, end="")
