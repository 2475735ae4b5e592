"""Options that several commands have."""

from typing import Annotated

import typer

Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there")]
