"""The command that tries many settings of a run: sweep."""

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    sweep_file: Annotated[Path, typer.Argument(help="a sweep file, e.g. configs/sweep_catran.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="changes to it, e.g. budget.trials=12 run.training.epochs=5")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a sweep that was interrupted")] = False,
    address: Annotated[
        str, typer.Option(help="of the Ray cluster, or local; if not given, RAY_ADDRESS, or a new one on this machine")
    ] = "",
) -> None:
    """Try many settings of a run, and compare the best with the run's own on fresh seeds."""
    from grndist.config import parse_overrides
    from grndist.launch.connection import refuse_unusable

    refuse_unusable(address)
    from grndist.sweeps.drive import run_sweep

    changes = [*(overrides or []), *([f"address={address}"] if address else [])]
    print(run_sweep(sweep_file, parse_overrides(changes), resume).text, end="")
