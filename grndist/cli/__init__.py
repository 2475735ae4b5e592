"""The command line: one function per stage. Parse, call, print; no logic lives here.

The only unit that imports inside functions, so that `--help` is instant.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from grndist import __version__
from grndist.cli import (
    baselines,
    benchmark,
    causalbench,
    cluster,
    cluster_jobs,
    data,
    effects,
    evaluation,
    models,
    networks,
    sweeps,
    tracking,
)
from grndist.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(data.simulate)
app.command()(data.ingest)
app.command()(networks.train)
app.command()(networks.infer)
app.command()(evaluation.evaluate)
app.command(no_args_is_help=True)(baselines.baseline)
app.command(no_args_is_help=True)(effects.effects)
app.command()(networks.embeddings)
app.command()(networks.neighbours)
app.command()(networks.latent)
app.command()(sweeps.sweep)
app.command()(causalbench.causalbench)
app.command(no_args_is_help=True)(benchmark.benchmark)
app.command()(cluster_jobs.doctor)
app.command()(cluster_jobs.preflight)
app.command()(cluster_jobs.submit)

store_app = typer.Typer(no_args_is_help=True, help="Look at a store: info, verify, head.")
store_app.command("info")(data.store_info)
store_app.command("verify")(data.store_verify)
store_app.command("head")(data.store_head)
app.add_typer(store_app, name="store")

models_app = typer.Typer(
    no_args_is_help=True, help="Registered networks: register, list, show, promote, compare, pull."
)
models_app.command("register")(models.register)
models_app.command("list")(models.listing)
models_app.command("show")(models.show)
models_app.command("promote")(models.promote)
models_app.command("compare")(models.compare)
models_app.command("pull")(models.pull)
app.add_typer(models_app, name="models")

cluster_app = typer.Typer(no_args_is_help=True, help="Files that start a Ray cluster: check.")
cluster_app.command("check", no_args_is_help=True)(cluster.check)
app.add_typer(cluster_app, name="cluster")

tracking_app = typer.Typer(no_args_is_help=True, help="What MLflow did not take: replay.")
tracking_app.command("replay", no_args_is_help=True)(tracking.replay)
app.add_typer(tracking_app, name="tracking")


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"grndist {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    """Infer gene regulatory networks from single-cell expression and Perturb-seq.

    simulate or your own data -> ingest -> train -> infer -> evaluate
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("grndist").setLevel(logging.INFO)


def entry() -> None:
    """The `grndist` program: a mistake of the user's is one message, not a traceback."""
    # Idle threads sleep instead of spinning, which pays where another process wants the cores (docs/experiments.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        print(f"grndist: {error}", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_status", 2)) from None
    except OSError as error:  # no permission, no space, a disk that went away: the machine's, not a bug
        print(f"grndist: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
