"""The command that tests every perturbed gene of a store on every measured one."""

from pathlib import Path
from typing import Annotated

import typer

from grndist.cli.options import Overwrite

MIB = 2**20


def effects(
    store: Annotated[str, typer.Argument(help="a store, at a path or URL")],
    out: Annotated[str, typer.Option("--out", "-o", help="the effect atlas to write, a Zarr group NAME.zarr")],
    selection: Annotated[
        list[str] | None,
        typer.Argument(help="cells, targets and expression, as in a run file, e.g. cells.split=[test]"),
    ] = None,
    memory: Annotated[int, typer.Option(min=1, help="MiB of expression held at a time")] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Test what every perturbed gene does to every measured one, for networks to be scored by look-up.

    Interrupted, the same command goes on from what is there.
    """
    from grndist.config import parse_overrides, validate
    from grndist.data.selection import select
    from grndist.data.store import open_store
    from grndist.evaluation.interventional import EffectsConfig, refuse_atlas, write_atlas

    config = validate(EffectsConfig, parse_overrides(selection or []), "grndist effects")
    refuse_atlas(out, overwrite)
    view = select(open_store(store), config)
    print("\n".join(view.lines), end="\n" if view.lines else "")
    atlas = write_atlas(Path(out), view, config.expression, memory * MIB, overwrite)
    print(
        f"{out}: {len(atlas.regulators):,} perturbed genes x {len(atlas.targets):,} targets, {atlas.n.min():,} to "
        f"{atlas.n.max():,} cells each against {atlas.about['n_controls']:,} control cells"
    )
    print("\nnext: grndist evaluate EDGES --atlas " + out)
