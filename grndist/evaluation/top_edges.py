"""The strongest edges of a network against a database of known pairs, as CausalBench scores networks by biology.

CausalBench (1.1.2, `biological_evaluation`) counts true positives alone: the edges that the database has, of a network
without weights. Precision, recall and F1 are not in its package; their definitions here are ours.
"""

from typing import Any

import numpy as np
import pandas as pd

from grndist.networks.edges import EdgeList, edge_list

PAIR = ["regulator", "target"]


def top_edges(edges: EdgeList, known: pd.DataFrame, panel: set[str], k: int, is_directed: bool) -> dict[str, Any]:
    """How many of the `k` strongest edges between genes of the panel are known.

    Without direction a pair counts once, with the stronger of its two edges, so that `k` pairs are compared; an edge of
    weight 0 is none. Edges tied with the k-th are taken in the list's order. Of a shorter list all edges count.

    - true positives: known ones among them. With both directions of every known pair in its database, the benchmark
      counts the same: it turns every edge both ways and halves the hits.
    - precision: true positives / pairs compared.
    - recall: true positives / known pairs with both genes in the panel, self-pairs left out.
    - F1: 2 x true positives / (pairs compared + known pairs).
    - precision ratio: precision / (known pairs / all pairs of two different genes of the panel).

    Args:
        edges: the network, strongest edge first.
        known: the pairs of the database in the columns regulator and target.
        panel: the genes that may be in a pair.
        k: how many edges.
        is_directed: whether a pair and its reverse are two.
    """
    table = edges.table[edges.table["weight"] != 0]
    compared = _pairs(table, panel, is_directed).head(k)
    real = _pairs(known, panel, is_directed)
    hits = len(compared.merge(real, on=PAIR))
    return _measures(hits, len(compared), len(real), _possible(panel, is_directed))


def chance(known: pd.DataFrame, panel: set[str], k: int, is_directed: bool) -> dict[str, Any]:
    """The expected measures of `k` pairs drawn at random among all of the panel (exact, no draws)."""
    real, possible = len(_pairs(known, panel, is_directed)), _possible(panel, is_directed)
    compared = min(k, possible)
    return _measures(compared * real / possible, compared, real, possible)


def strongest_pairs(matrix: pd.DataFrame, k: int) -> EdgeList:
    """The strongest entries of symmetric scores [genes, genes] off the diagonal: `k` pairs, each both ways round.

    Ties are taken in the order of the matrix; a score of 0 is no pair.
    """
    scores = matrix.to_numpy().copy()
    np.fill_diagonal(scores, 0.0)
    flat = scores.ravel()
    number = min(2 * k, len(flat))
    able = np.flatnonzero((flat >= np.partition(flat, -number)[-number]) & (flat > 0))
    chosen = able[np.argsort(-flat[able], kind="stable")][:number]
    rows, columns = np.divmod(chosen, len(matrix))
    genes = matrix.index.to_numpy()
    return edge_list(genes[rows], genes[columns], flat[chosen], genes=tuple(genes))


def _pairs(table: pd.DataFrame, panel: set[str], is_directed: bool) -> pd.DataFrame:
    """Pairs of two different genes of the panel, each once, in order of first appearance."""
    inside = table["regulator"].isin(panel) & table["target"].isin(panel) & (table["regulator"] != table["target"])
    first, second = (table.loc[inside, name].to_numpy(dtype=object) for name in PAIR)
    if not is_directed:
        turned = first > second
        first, second = np.where(turned, second, first), np.where(turned, first, second)
    return pd.DataFrame({"regulator": first, "target": second}, dtype=object).drop_duplicates(ignore_index=True)


def _possible(panel: set[str], is_directed: bool) -> int:
    ordered = len(panel) * (len(panel) - 1)
    return ordered if is_directed else ordered // 2


def _measures(hits: int | float, compared: int, real: int, possible: int) -> dict[str, Any]:
    precision = hits / compared if compared else float("nan")
    return {
        "k": real,
        "candidates": possible,
        "edges": compared,
        "true positives": float(hits),
        "precision": precision,
        "recall": hits / real if real else float("nan"),
        "F1": 2 * hits / (compared + real) if compared + real else float("nan"),
        "precision ratio": precision * possible / real if real else float("nan"),
    }
