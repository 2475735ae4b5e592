"""The command that compares methods on data sets: benchmark."""

from pathlib import Path
from typing import Annotated

import typer


def benchmark(
    config: Annotated[Path, typer.Argument(help="a benchmark file, e.g. configs/benchmark_quick.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="changes to it, e.g. data=FOLDER out=FOLDER seeds=[0,1]")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes that compute, each with one thread")] = 1,
    table: Annotated[
        bool, typer.Option("--table", help="make the table of what has been computed so far, and compute nothing")
    ] = False,
) -> None:
    """Compare methods on data sets over seeds; after an interruption the same command goes on."""
    from grndist.benchmarks.comparison.drive import run_benchmark
    from grndist.config import parse_overrides

    print(run_benchmark(config, parse_overrides(overrides or []), jobs, table).text, end="")
