"""Train, validation and test cells: the same share of every perturbation in each.

A cell's part follows from its name and label, those of the others, the fractions and the seed; the order of the cells
in their file does not matter.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64, Shaped

from grndist.data.view import View
from grndist.errors import UserError
from grndist.seeds import stream

PARTS = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)


def parted(view: View, share: float, seed: int) -> tuple[View, View]:
    """The cells without a share of every label, and that share; either may be empty. Not the store's own split."""
    own_seed = int(stream(seed, "validation").integers(2**32))
    parts = split_cells(view.obs.index, view.obs["perturbation"], (1 - share, share, 0.0), own_seed)
    held = np.asarray(parts == "validation")
    return _part(view, ~held), _part(view, held)


def _part(view: View, keep: Bool[np.ndarray, " cells"]) -> View:
    return replace(view, rows=view.rows[keep], labels=None if view.labels is None else view.labels[keep])


def split_cells(
    names: Sequence[str] | pd.Index,
    labels: Sequence[str] | Shaped[np.ndarray, " cells"] | pd.Series,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
) -> pd.Categorical:
    """The part each cell belongs to, with the categories "train", "validation" and "test".

    Of n cells of a label, a part with fraction f gets floor(n f) or one more, by largest remainder; what one label
    rounds away the next ones make up for, so that the parts' totals match the fractions as well. A label with one cell
    goes to train, or to the first part with a fraction where that is 0.

    Args:
        names: of the cells, each one once.
        labels: perturbation labels of the cells.
        fractions: of train, validation and test; their sum is 1.
        seed: of the choice of cells within a label.

    Raises:
        UserError: the fractions are not shares of one whole.
    """
    shares = np.array(fractions, dtype=np.float64)
    if (shares < 0).any() or not np.isclose(shares.sum(), 1, rtol=0, atol=1e-9):
        raise UserError(
            f"the fractions of train, validation and test are {', '.join(map(str, fractions))}; "
            "give three numbers of 0 or more whose sum is 1, e.g. 0.8, 0.1, 0.1"
        )
    grouped = _sorted_labels(labels)
    by_name = np.argsort(np.asarray(names, dtype=object), kind="stable")
    order = by_name[np.argsort(grouped.codes[by_name], kind="stable")]  # label after label, by name inside
    sizes = np.bincount(grouped.codes, minlength=len(grouped.categories))
    counts = _counts(sizes, shares)
    codes = np.empty(len(order), dtype=np.int8)
    first = 0
    for label, size, wanted in zip(grouped.categories, sizes, counts, strict=True):
        drawn = stream(seed, "split", str(label)).permutation(size)
        codes[order[first + drawn]] = np.repeat(np.arange(len(PARTS), dtype=np.int8), wanted)
        first += size
    return pd.Categorical.from_codes(codes, categories=list(PARTS))


def _sorted_labels(labels: Sequence[str] | np.ndarray | pd.Series) -> pd.Categorical:
    """The labels that occur, their order being that of their names alone."""
    found = pd.Categorical(labels).remove_unused_categories()
    return found.reorder_categories(sorted(found.categories))


def _counts(sizes: Int64[np.ndarray, " labels"], shares: Float[np.ndarray, " parts"]) -> list[list[int]]:
    """How many cells of each label go to each part."""
    counts: list[list[int]] = []
    owed = np.zeros(len(shares))  # what earlier labels rounded away from each part
    for size in sizes:
        if size == 1:
            counts.append((np.arange(len(shares)) == np.argmax(shares > 0)).astype(int).tolist())
            continue
        exact = np.round(size * shares, 9)  # 10 * 0.3 is 3, not 2.9999999999999996
        given = np.floor(exact)
        claim = np.where(exact > given, owed + exact - given, -np.inf)
        given[np.argsort(-claim, kind="stable")[: int(size - given.sum())]] += 1
        owed += exact - given
        counts.append(given.astype(int).tolist())
    return counts
