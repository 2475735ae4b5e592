"""Options that several commands have."""

import re
from typing import Annotated

import typer

from grndist.errors import UserError

Run = Annotated[str, typer.Argument(help="a run directory, at a path or URL, or models:/NAME@ALIAS")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there")]
Workers = Annotated[
    str | None,
    typer.Option(help="train on so many workers of a Ray cluster: 4, or 2..8 for as many as there is room for"),
]
Address = Annotated[
    str | None,
    typer.Option(help="of the Ray cluster, or local for workers on this machine; if not given, RAY_ADDRESS says it"),
]


def of_workers(workers: str | None, address: str | None) -> list[str]:
    """These options as changes to a run file.

    Raises:
        UserError: --workers is neither a number nor two.
    """
    changes = [f"workers.address={address}"] if address else []
    if workers is None:
        return changes
    found = re.fullmatch(r"(\d+)(?:(?:\.\.|-)(\d+))?", workers)
    if not found:
        raise UserError(f"--workers {workers}: a number was expected, or the fewest and the most, e.g. 2..8")
    least, most = found[1], found[2] or found[1]
    return [f"workers.min={least}", f"workers.max={most}", *changes]


def beside(run: str, name: str) -> str:
    """Where a command writes a file of a run if nothing is said: into its directory.

    Raises:
        UserError: the run is a registered network, which is only read.
    """
    from grndist.storage import joined
    from grndist.tracking.registry import is_registered

    if is_registered(run):
        raise UserError(f"{run} is registered, and nothing is written there; say where the result goes: -o {name}")
    return joined(run, name)
