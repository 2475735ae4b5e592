"""The registry of networks: models register, list, show, promote, compare, pull."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grndist.cli.options import Overwrite
from grndist.errors import UserError

if TYPE_CHECKING:
    from grndist.tracking.registry import Registry

Store = Annotated[
    str,
    typer.Option(
        "--tracking-uri",
        help="the MLflow store; if not given, MLFLOW_TRACKING_URI says it, else it is mlflow.db in --runs",
    ),
]
Runs = Annotated[str, typer.Option(help="the folder of the runs")]
Alias = Annotated[str, typer.Option(help="a name that moves from version to version, e.g. champion")]
One = Annotated[str, typer.Argument(metavar="NETWORK", help="NAME@ALIAS, NAME/VERSION or NAME/latest")]


def register(
    run: Annotated[str, typer.Argument(help="a run directory, at a path or URL")],
    name: Annotated[str, typer.Option(help="of the registered network; one that is new is made")],
    alias: Alias = "",
    tracking_uri: Annotated[
        str, typer.Option(help="an MLflow store other than the run's own, which is logged there first")
    ] = "",
) -> None:
    """Register the network of a run as the next version of a name."""
    from grndist.runs.registering import register_run

    found = register_run(run, name, alias, tracking_uri)
    print("\n".join(found.lines))
    address = f"models:/{name}@{alias}" if alias else found.version.address
    print(f"\nnext: {_before(found.registry.uri)}grndist infer {address} -o edges.parquet")


def listing(tracking_uri: Store = "", runs: Runs = "runs") -> None:
    """Every registered network, with its newest version and its aliases."""
    registry = _registry(tracking_uri, runs)
    names = registry.names()
    if not names:
        print(f"none is registered at {registry.uri}\n\nnext: grndist models register RUN --name NAME --alias champion")
        return
    found = {name: registry.versions(name) for name in names}
    rows = [
        [
            name,
            str(versions[-1].number) if versions else "-",
            ", ".join(f"{alias} at {version.number}" for version in versions for alias in version.aliases) or "-",
            versions[-1].tags.get("grndist.model", "-") if versions else "-",
            f"{versions[-1].registered:%Y-%m-%d %H:%M}" if versions else "-",
        ]
        for name, versions in found.items()
    ]
    print(_table([["name", "newest", "aliases", "model", "registered, UTC"], *rows]))


def show(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="NAME, or NAME@ALIAS, or NAME/VERSION")],
    tracking_uri: Store = "",
    runs: Runs = "runs",
) -> None:
    """The versions of a registered network, or all that is known of one of them."""
    from grndist.tracking.registry import reference_of

    registry, asked = _registry(tracking_uri, runs), reference_of(network)
    if not (asked.alias or asked.number):
        rows = [
            [
                str(version.number),
                ", ".join(version.aliases) or "-",
                version.tags.get("grndist.model", "-"),
                version.tags.get("grndist.store_digest", "-")[:12],
                f"{version.registered:%Y-%m-%d %H:%M}",
                version.tags.get("grndist.run", "-"),
            ]
            for version in registry.versions(asked.name)
        ]
        print(_table([["version", "aliases", "model", "data", "registered, UTC", "run"], *rows]))
        return
    version = registry.find(network)
    facts = {
        "network": version.address,
        "aliases": ", ".join(version.aliases) or "-",
        "registered": f"{version.registered:%Y-%m-%d %H:%M} UTC, at {registry.uri}",
        "MLflow run": version.run_id,
        **{key.removeprefix("grndist."): value for key, value in sorted(version.tags.items())},
        **{f"score now: {name}": str(value) for name, value in registry.scores(version.run_id).items()},
    }
    print(_table([[key, value] for key, value in facts.items()]))


def promote(
    name: Annotated[str, typer.Argument(help="of a registered network")],
    version: Annotated[int, typer.Argument(min=1, help="its number")],
    alias: Alias = "champion",
    tracking_uri: Store = "",
    runs: Runs = "runs",
) -> None:
    """Move an alias to a version of a registered network."""
    from grndist.runs.registering import promoted

    registry = _registry(tracking_uri, runs)
    print(promoted(registry, registry.find(f"{name}/{version}"), alias))


def compare(
    a: Annotated[str, typer.Argument(help="a run directory, an edge list, or models:/NAME@ALIAS")],
    b: Annotated[str, typer.Argument(help="the same of the other network")],
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="so many strongest edges; may be given several times")
    ] = None,
    tracking_uri: Store = "",
    runs: Runs = "runs",
) -> None:
    """Compare two networks: their edges, scores, data and settings."""
    from grndist.runs.comparing import compared

    print("\n".join(compared(a, b, k or (), tracking_uri, runs).lines()))


def pull(
    network: One,
    out: Annotated[str, typer.Option("--out", "-o", help="a new folder, which is then a run directory")],
    overwrite: Overwrite = False,
    tracking_uri: Store = "",
    runs: Runs = "runs",
) -> None:
    """Copy a registered network to this machine: its edges, its checkpoint and its settings."""
    from grndist.storage import is_remote

    if is_remote(out):
        raise UserError(f"{out}: a network is copied to this machine; give a folder")
    registry = _registry(tracking_uri, runs)
    version = registry.find(network)
    registry.pull(version, Path(out), overwrite)
    print(f"{out}: {version.address}, with {', '.join(sorted(path.name for path in Path(out).iterdir()))}")
    print(f"\nnext: grndist infer {out} -k 5000 -o edges.tsv")


def _registry(tracking_uri: str, runs: str) -> "Registry":
    from grndist.tracking.registry import Registry
    from grndist.tracking.stores import store_uri

    return Registry.at(store_uri(tracking_uri, runs))


def _before(uri: str) -> str:
    """What stands before a command, so that it finds a store which is not the usual one."""
    from grndist.tracking.stores import RegistryError, store_uri

    try:
        return "" if store_uri() == uri else f"MLFLOW_TRACKING_URI='{uri}' "
    except RegistryError:
        return f"MLFLOW_TRACKING_URI='{uri}' "


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
