"""Effect atlas: what every perturbed gene of a store does to every measured one, in memory or as a Zarr group.

The group has `p`, `wasserstein` and `log_fold_change` (mean of the perturbed cells minus mean of the controls, in the
units of the expression: natural log where that is log1p), float64 [regulator, target], `n`, the perturbed cells
[regulator], and the names `regulator` and `target`; its attributes say of which store, cells and expression it is. A
gene's effect on itself is in it, but never counts as an edge.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from jaxtyping import Float64, Int64

from grndist.data.normalise import ExpressionConfig
from grndist.data.selection import SelectionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.all_pairs import TARGETS, blocks_of, effects_on, screened
from grndist.evaluation.interventional.cells import MEMORY, InterventionError
from grndist.parallel import pieces
from grndist.progress import track

KIND = "grndist effect atlas"
MEASURES = ("p", "wasserstein", "log_fold_change")
Matrix = Float64[np.ndarray, "regulators targets"]


class EffectsConfig(SelectionConfig):
    """Of which cells, targets and expression an atlas is made."""

    expression: ExpressionConfig = ExpressionConfig()


@dataclass(frozen=True, eq=False)
class Atlas:
    """The effects of `regulators`, single genes, on `targets`; looked up, never computed again."""

    place: str
    regulators: pd.Index
    targets: pd.Index
    n: Int64[np.ndarray, " regulators"]  # perturbed cells
    measures: Mapping[str, Any]  # arrays [regulators, targets], in memory or on disk: p, wasserstein, log_fold_change
    about: Mapping[str, Any]  # store_digest, view_digest, selection, expression, n_controls, n_cells

    @property
    def n_cells(self) -> int:
        """Cells it was made of, the controls included."""
        return int(self.about["n_cells"])

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """Its targets and, after them, perturbed genes that were not measured."""
        return (*self.targets, *self.regulators[~self.regulators.isin(self.targets)])

    def test(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Columns n, p and wasserstein of testable pairs (regulator, target), in their order."""
        return self.look_up(pairs, ("p", "wasserstein"))

    def look_up(self, pairs: pd.DataFrame, names: Sequence[str] = MEASURES) -> pd.DataFrame:
        """Column n and the measures of testable pairs (regulator, target), in their order."""
        row, column = self.regulators.get_indexer(pairs["regulator"]), self.targets.get_indexer(pairs["target"])
        found = {name: np.empty(len(pairs)) for name in names}
        order = np.argsort(column, kind="stable")
        for part in pieces(len(self.targets), TARGETS):
            own = order[slice(*np.searchsorted(column[order], [part.start, part.stop]))]
            for name in names if len(own) else ():
                found[name][own] = self.measures[name][:, part][row[own], column[own] - part.start]
        return pd.DataFrame({"n": self.n[row], **found}, index=pairs.index)

    def blocks(self) -> Iterator[tuple[slice, Matrix, Matrix]]:
        """P and distance of all regulators, some targets at a time."""
        for part in pieces(len(self.targets), TARGETS):
            yield part, self.measures["p"][:, part], self.measures["wasserstein"][:, part]


def effects_of(view: View, expression: ExpressionConfig | None = None, memory: int = MEMORY) -> Atlas:
    """The atlas of a view, in memory: 24 bytes a pair.

    Args:
        view: the cells, e.g. those held out from training, and the genes that are targets.
        expression: which values are compared, before any z-score; None: the log scale.
        memory: bytes of expression held at a time; fewer mean more passes over the cells.

    Raises:
        InterventionError: there are no control cells, or no gene is perturbed.
    """
    config, groups = expression or ExpressionConfig(), screened(view)
    measures = {name: np.empty((len(groups.regulators), view.n_genes)) for name in MEASURES}
    parts = blocks_of(groups, view.n_genes, memory)
    for part in track(parts, "effects on the genes", len(parts)):
        block = effects_on(groups, np.arange(part.start, part.stop), config)
        for name in MEASURES:
            measures[name][:, part] = getattr(block, name)
    targets = pd.Index(view.panel.names, dtype=object)
    about = provenance(view, config, groups.n_controls)
    return Atlas(view.place, groups.regulators, targets, groups.sizes, measures, about)


def provenance(view: View, config: ExpressionConfig, n_controls: int) -> dict[str, Any]:
    """What an atlas was made of."""
    return {
        "kind": KIND,
        "store": view.place,
        "store_digest": view.store.digest,
        "view_digest": view.digest,
        "selection": list(view.lines),
        "state": view.state,
        "expression": config.model_dump(include={"transform", "cell_minmax"}),
        "n_cells": view.n_cells,
        "n_controls": n_controls,
    }


def open_atlas(path: Path) -> Atlas:
    """An atlas on disk; effects are read when they are asked for, the chunks that have them.

    Raises:
        InterventionError: there is none at `path`.
    """
    try:
        group = zarr.open_group(path, mode="r")
    except FileNotFoundError:
        raise InterventionError(f"{path}: no effect atlas is there; make one with grndist effects") from None
    if group.attrs.get("kind") != KIND:
        raise InterventionError(
            f"{path} is no effect atlas, but another Zarr group; give what grndist effects has written"
        )
    regulators, targets = (pd.Index(_array(group, name)[:].astype(object)) for name in ("regulator", "target"))
    measures = {name: _array(group, name) for name in MEASURES}
    return Atlas(str(path), regulators, targets, np.asarray(_array(group, "n")[:]), measures, dict(group.attrs))


def _array(group: zarr.Group, name: str) -> Any:
    return group[name]
