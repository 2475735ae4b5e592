"""The commands of `grndist tracking`: what MLflow did not take, sent later."""

from typing import Annotated

import typer


def replay(
    folders: Annotated[
        list[str], typer.Argument(help="run directories, run roots or folders of sweeps, at paths or URLs")
    ],
    uri: Annotated[
        str, typer.Option(help="of another server or database, for runs of which MLflow has nothing yet")
    ] = "",
) -> None:
    """Bring MLflow what waits for it in every tracking-spool below some folders; again is harmless."""
    from grndist.tracking import replay as send

    send(folders, print, uri)
