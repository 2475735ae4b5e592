"""The command that scores networks: evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grndist.cli.options import Overwrite, beside
from grndist.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grndist.evaluation.evaluate import Expression
    from grndist.evaluation.many import ScoringConfig
    from grndist.evaluation.tables import ScoreTable
    from grndist.networks.edges import EdgeList

LISTED = ("edges.parquet", "rankedEdges.csv")  # what of a directory is its network
DRAWN = {"EPR": 1.0, "AUPRC ratio": 1.0, "AUROC": 0.5, "precision ratio": 1.0}


def evaluate(
    edges: Annotated[
        list[str], typer.Argument(help="edge lists at paths or URLs, run directories, or models:/NAME@ALIAS")
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(help="the network to compare with; may be given several times; undirected:FILE or directed:FILE"),
    ] = None,
    atlas: Annotated[
        str | None, typer.Option(help="what knock-downs do, from grndist effects, to compare with instead")
    ] = None,
    store: Annotated[str | None, typer.Option(help="score absolute correlation on this store beside it")] = None,
    candidates: Annotated[
        str, typer.Option(help="BEELINE's: tf, all (pairs of reference genes), or auto: tf where it names regulators")
    ] = "auto",
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="the same as --candidates all")] = False,
    measures: Annotated[
        str | None, typer.Option(help="ranking (EPR, AUPRC, AUROC), top (of the strongest edges) or all")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="so many strongest edges; 1000 if not given")] = None,
    replicates: Annotated[
        bool, typer.Option("--replicates", help="the networks are replicates: how much do they agree")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="JSON; beside EDGES if not given, of several scores.json, with .parquet and .png"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the random baseline")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Score edge lists against reference networks, or against the effects of knock-downs, beside baselines."""
    if (atlas is None) == (not reference):
        raise UserError("say what to compare with: --reference NETWORK.tsv, or --atlas EFFECTS.zarr (grndist effects)")
    if atlas is not None or reference is None:
        _evaluate_with_atlas(edges, str(atlas), out, overwrite)
        return
    from grndist.config import validate
    from grndist.data.store import open_store
    from grndist.evaluation.evaluate import expression_of
    from grndist.evaluation.many import ScoringConfig

    if all_pairs and candidates not in ("auto", "all"):
        raise UserError(f"--all-pairs and --candidates {candidates} exclude each other; give one of them")
    settings: dict[str, Any] = {"candidates": "all" if all_pairs else candidates, "seed": seed}
    settings |= {} if measures is None else {"measures": measures}
    settings |= {} if top is None else {"top": top}
    config = validate(ScoringConfig, settings, "grndist evaluate")
    places = [_edge_list(place) for place in edges]
    alone = len(places) == len(reference) == 1 and measures is None and top is None and not replicates
    files = _files(places[0], reference[0], out) if alone else _files_of_many(out)
    for file in files:
        _refuse_taken(file, overwrite)

    def expression() -> "Expression | None":  # after the networks, as files are checked in the order they are given
        return None if store is None else expression_of(open_store(store))

    if alone:
        _evaluate_one(places[0], reference[0], expression, config, files[0], overwrite)
    else:
        _evaluate_many(places, reference, expression, config, replicates, files, overwrite)


def _evaluate_one(place: str, where: str, expression: Any, config: "ScoringConfig", out: str, overwrite: bool) -> None:
    from grndist.evaluation.evaluate import evaluate as run
    from grndist.evaluation.references import named_reference
    from grndist.inference import listed_edges
    from grndist.storage import delivered

    network, values = listed_edges(place), expression()
    all_pairs, tf_edges = config.candidates == "all", config.candidates == "tf"
    scores = run(network, named_reference(where)[1], values, all_pairs, config.seed, place, tf_edges)
    with delivered(out) as file:
        scores.write(file, overwrite)
    print(scores.render(), end="")
    print(f"scores: {out}")
    _track(network, scores.flat())


def _evaluate_many(
    places: list[str],
    wheres: list[str],
    expression: Any,
    config: "ScoringConfig",
    replicates: bool,
    files: list[str],
    overwrite: bool,
) -> None:
    from grndist.evaluation.many import Named, score_many, short_names
    from grndist.evaluation.references import named_references
    from grndist.inference import listed_edges
    from grndist.plots import score_figure

    names = short_names(places)
    networks = [Named(name, listed_edges(place), place) for name, place in zip(names, places, strict=True)]
    board = score_many(networks, named_references(wheres), expression(), config, replicates)
    _write(board, score_figure(board.table, DRAWN), files, overwrite)
    print(board.render(), end="")
    print(f"scores: {files[0]}, {files[1]}\n\nnext: look at {files[2]}")
    for network in networks:
        _track(network.edges, board.flat(network.name))


def _evaluate_with_atlas(edges: list[str], atlas: str, out: str | None, overwrite: bool) -> None:
    from grndist.evaluation.interventional import curves_of, open_atlas
    from grndist.evaluation.many import Named, short_names
    from grndist.inference import listed_edges
    from grndist.plots import curves_figure

    files = _files_of_many(out)
    for file in files:
        _refuse_taken(file, overwrite)
    places = [_edge_list(place) for place in edges]
    networks = [
        Named(name, listed_edges(place), place) for name, place in zip(short_names(places), places, strict=True)
    ]
    curves = curves_of(networks, open_atlas(Path(atlas)))
    _write(curves, curves_figure(curves.table), files, overwrite)
    print(curves.render(), end="")
    print(f"scores: {files[0]}, {files[1]}\n\nnext: look at {files[2]}")
    for network in networks:
        _track(network.edges, curves.flat(network.name))


def _write(scores: "ScoreTable", figure: "Figure", files: list[str], overwrite: bool) -> None:
    """Write JSON, Parquet and figure."""
    from grndist.plots import write_figure
    from grndist.storage import delivered

    as_json, as_parquet, as_figure = files
    with delivered(as_json) as file:
        scores.write_json(file, overwrite)
    with delivered(as_parquet) as file:
        scores.write_parquet(file, overwrite)
    with delivered(as_figure) as file:
        write_figure(figure, file, overwrite)


def _track(network: "EdgeList", scores: dict[str, float]) -> None:
    """Log the scores to the network's run, if it has one."""
    from grndist.runs import tracked

    if "run" in network.origin:
        with tracked(network.origin["run"]) as tracker:
            tracker.log_scores(scores)


def _edge_list(place: str) -> str:
    """Where the edge list is: of a run directory or one of BEELINE's outputs, the file in it."""
    if not Path(place).is_dir():
        return place
    found = next((Path(place, name) for name in LISTED if Path(place, name).is_file()), None)
    if found is None:
        raise UserError(
            f"{place} is a directory without {' or '.join(LISTED)}; write its network first: "
            f"grndist infer {place} --all"
        )
    return str(found)


def _files(place: str, where: str, out: str | None) -> list[str]:
    from grndist.tracking.registry import is_registered

    folder, _, name = place.rpartition("/")
    scores_name = f"{name.split('.')[0]}.{Path(where.rpartition(':')[2]).name.split('.')[0]}.scores.json"
    return [out or beside(place if is_registered(place) else folder or ".", scores_name)]


def _files_of_many(out: str | None) -> list[str]:
    path = out or "scores.json"
    if not path.endswith(".json"):
        raise UserError(f"{path}: scores are written as JSON; give a name that ends in .json")
    return [path, *(path.removesuffix("json") + ending for ending in ("parquet", "png"))]


def _refuse_taken(path: str, overwrite: bool) -> None:
    from grndist.storage import refuse_taken

    refuse_taken(path, overwrite)
