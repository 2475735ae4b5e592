"""The command that runs CausalBench's regimes: causalbench."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grndist.cli.options import Address, Workers, of_workers
from grndist.errors import UserError

if TYPE_CHECKING:
    from grndist.config import Tree


def causalbench(
    data: Annotated[str, typer.Argument(help="a store, or an h5ad of counts, which is ingested beside itself once")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="changes to all models that are trained, e.g. training.threads=2, to one, e.g. "
            "paper.training.epochs=5, or to the filter, e.g. causalbench.symbol_column=gene"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="a preset, a run file or a baseline; repeat it. If not given: paper, catran_d, mean_difference_log, "
            "random"
        ),
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:SHEET]",
            help="table of the perturbations' summary statistics, for the filter of the challenge; a sheet that is not "
            "named follows from K562 or RPE1 in the name of the data",
        ),
    ] = None,
    fractions: Annotated[
        str, typer.Option(help="shares of the labels that are trained on; 0 is control cells alone")
    ] = "0.25,0.5,0.75,1.0",
    seeds: Annotated[str, typer.Option(help="of the choice of labels and of the training")] = "0,1,2",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="edges at which models are compared")] = 1000,
    out: Annotated[str, typer.Option("--out", "-o", help="a folder for everything")] = "causalbench",
    resume: Annotated[bool, typer.Option("--resume", help="go on with one that was interrupted, or add to it")] = False,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Train models on growing shares of the interventions, and test their edges on held-out cells beside baselines."""
    from grndist.benchmarks.causalbench import RegimesConfig, contenders, run_causalbench, store_of, summary_of
    from grndist.benchmarks.causalbench.config import MODELS
    from grndist.config import merge, validate
    from grndist.launch.connection import refuse_unusable

    refuse_unusable(address or "")
    changes = by_model([*(overrides or []), *(of_workers(workers, address) if workers else [])], model or MODELS)
    tracking = changes.get("", {}).pop("tracking", {})
    chosen = changes.get("", {}).pop("causalbench", {})
    if summary is not None:
        chosen = merge(chosen, {"summary": summary_of(summary, data).model_dump(mode="json")})
    models = contenders(model or MODELS, changes)
    settings = {
        "store": data, "models": [one.name for one in models], "fractions": numbers("--fractions", fractions, float),
        "seeds": numbers("--seeds", seeds, int), "k": k, "causalbench": chosen, "tracking": tracking,
    }  # fmt: skip
    validate(RegimesConfig, settings, "grndist causalbench")
    store, lines = store_of(data)
    print("\n".join(lines), flush=True)
    config = validate(RegimesConfig, settings | {"store": store}, "grndist causalbench")
    done = run_causalbench(config, models, out, resume, address or "")
    print(done.text, end="")
    print(f"\nnext: look at {done.folder / 'causalbench.png'}")


def by_model(overrides: list[str], names: "list[str] | tuple[str, ...]") -> "dict[str, Tree]":
    """Changes of one model by its name, others under ""."""
    from grndist.config import merge, parse_overrides

    stems = {Path(name).stem if name.endswith((".yaml", ".yml")) else name for name in names}
    found: dict[str, Tree] = {}
    for override in overrides:
        first, dot, rest = override.partition(".")
        name = first if dot and first in stems and "=" not in first else ""
        found[name] = merge(found.get(name, {}), parse_overrides([rest if name else override]))
    return found


def numbers(option: str, text: str, kind: type[float] | type[int]) -> list[float] | list[int]:
    """A list like 0.25,0.5.

    Raises:
        UserError: it is none.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: numbers with commas between them were expected") from None
