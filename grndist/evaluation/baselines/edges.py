"""From a view to a baseline's edge list, one call for every method."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np
import sklearn
from jaxtyping import Float

from grndist.data.view import View
from grndist.evaluation.baselines.evidence import EVIDENCE, BaselineError, Evidence, alphabetical
from grndist.evaluation.baselines.parts import opened_parts
from grndist.evaluation.baselines.tasks import RunTasks, processes
from grndist.evaluation.baselines.trees import Forest, Problem, weights_of_target
from grndist.genes import some
from grndist.networks.edges import EdgeList, edge_list
from grndist.networks.strongest import Block, Edges, strongest, top
from grndist.progress import track
from grndist.seeds import stream
from grndist.storage import is_remote

FORESTS: tuple[Forest, ...] = get_args(Forest)
METHODS = ("random", *EVIDENCE, *FORESTS)
SIGNED = frozenset(EVIDENCE) - {"pidc"}
SEEDED = frozenset({"random", *FORESTS})
ROWS = 256  # regulators whose weights are sorted out at a time


def baseline_edges(
    view: View,
    method: str,
    *,
    k: int | None = None,
    regulators: Collection[str] | None = None,
    seed: int = 0,
    run_tasks: RunTasks | None = None,
    folder: Path | None = None,
) -> EdgeList:
    """The strongest edges by one of METHODS, at most k, or all (k None); weight 0, as no evidence, is no edge.

    Methods of a difference of means know of perturbed regulators alone, measured or not. Ties at k are taken in
    alphabetical order of regulator, then target, so that the order of genes in the store is of no account.

    Args:
        view: the cells and genes; its regulators are the candidates.
        method: one of METHODS.
        k: how many edges.
        regulators: only these; names that the view does not have are passed over.
        seed: of random, genie3 and grnboost2.
        run_tasks: who does the targets of genie3 and grnboost2; if not given, a process for each CPU.
        folder: where those of them that are done are kept until all are, so that a killed call goes on there.

    Raises:
        BaselineError: no regulator is left, no gene is perturbed (mean_difference_*, blend), or there are too many
            genes or cells for the method.
        PartsError: the folder is of other settings.
    """
    refuse_unknown(method)
    targets = sorted(view.panel.names)
    if method in FORESTS:
        may = _allowed(view, view.panel.names, regulators)
        edges = _of_forest(view, method, may, seed, run_tasks or processes(), folder)
        return _named(view, method, seed, may, targets, edges if k is None else top(edges, k))
    if method == "random":
        may = _allowed(view, view.panel.names, regulators)
        blocks = _random_blocks(may, targets, seed)
    else:
        found = EVIDENCE[method](view)
        may = _allowed(view, found.regulators, regulators)
        blocks = _blocks(found, may)
    return _named(view, method, seed, may, targets, strongest(blocks, k))


def refuse_unknown(method: str) -> None:
    """Raise unless there is such a baseline.

    Raises:
        BaselineError: there is none.
    """
    if method not in METHODS:
        raise BaselineError(f"there is no baseline {method!r}; choose one of {', '.join(METHODS)}")


def parts_of(method: str, out: str) -> Path | None:
    """The folder beside an output on this machine for what is done of a long method; None for a short one."""
    return None if method not in FORESTS or is_remote(out) else Path(f"{out}.parts")


def _allowed(view: View, known: Sequence[str], wanted: Collection[str] | None) -> list[str]:
    """Those of the known regulators that the view allows and that are wanted, in alphabetical order."""
    may = set(known) if view.panel.regulators is None else set(known) & set(view.panel.regulators)
    left = sorted(may if wanted is None else may & set(wanted))
    if not left:
        asked = "" if wanted is None else f"; {some(sorted(wanted))} were asked for"
        raise BaselineError(
            f"{view.place}: no regulator is left of the {len(known):,} that the method knows of{asked}; "
            "name others, or loosen genes.regulators"
        )
    return left


def _random_blocks(regulators: Sequence[str], targets: Sequence[str], seed: int) -> Iterator[Block]:
    """Uniform weights in [0, 1), of each regulator by its name."""
    for start in range(0, len(regulators), ROWS):
        names = regulators[start : start + ROWS]
        weights = np.array([stream(seed, "random-baseline", name).random(len(targets)) for name in names])
        yield Block(slice(start, start + len(names)), _no_loops(weights, names, targets))


def _blocks(found: Evidence, regulators: Sequence[str]) -> Iterator[Block]:
    """The weights with rows and columns in alphabetical order."""
    columns = np.array(sorted(range(len(found.targets)), key=found.targets.__getitem__))
    targets, row = [found.targets[at] for at in columns], {name: at for at, name in enumerate(found.regulators)}
    for start in range(0, len(regulators), ROWS):
        names = regulators[start : start + ROWS]
        weights = found.weights[[row[name] for name in names]][:, columns]
        yield Block(slice(start, start + len(names)), _no_loops(weights, names, targets))


def _no_loops(
    weights: Float[np.ndarray, "regulators targets"], regulators: Sequence[str], targets: Sequence[str]
) -> Float[np.ndarray, "regulators targets"]:
    """The same with 0 for a gene and itself."""
    weights[np.array(regulators, dtype=object)[:, None] == np.array(targets, dtype=object)] = 0
    return weights


def _named(
    view: View, method: str, seed: int, regulators: Sequence[str], targets: Sequence[str], edges: Edges
) -> EdgeList:
    names = [np.array(genes, dtype=object) for genes in (regulators, targets)]
    origin = {"model": method, "store": view.place, "store_digest": view.store.digest, "view_digest": view.digest}
    origin |= {"seed": str(seed)} if method in SEEDED else {}
    return edge_list(
        names[0][edges.regulators], names[1][edges.targets], edges.weights, view.panel.names, method in SIGNED, origin
    )


def _of_forest(
    view: View, method: Forest, regulators: Sequence[str], seed: int, run_tasks: RunTasks, folder: Path | None
) -> Edges:
    """The edges by the trees of every gene, in order of regulator and target; some may be done already, in `folder`."""
    genes = sorted(view.panel.names)
    position = {name: at for at, name in enumerate(genes)}
    columns = np.array([position[name] for name in regulators])
    settings = {
        "method": method, "seed": seed, "view": view.digest, "scikit-learn": sklearn.__version__,
        "regulators": hashlib.sha256("\n".join(regulators).encode()).hexdigest(),
    }  # fmt: skip
    with opened_parts(folder, settings) as parts:
        done = parts.done()
        left = [target for target in range(len(genes)) if target not in done]
        if left:
            problem = Problem(method, seed, tuple(genes), alphabetical(view)[1], columns)
            with closing(run_tasks(weights_of_target, problem, left)) as results:
                for target, weights in track(results, f"{method}, {len(done):,} done before", len(left)):
                    parts.keep(target, weights)
                    done[target] = weights
    found = [(np.flatnonzero(done[target]), target) for target in range(len(genes))]
    row = np.concatenate([rows for rows, _ in found])
    column = np.concatenate([np.full(len(rows), target) for rows, target in found])
    weight = np.concatenate([done[target][rows] for rows, target in found])
    order = np.lexsort((column, row))
    return Edges(row[order].astype(np.int32), column[order].astype(np.int32), weight[order])
