"""The effect of every perturbed gene on every measured one, some targets at a time, on several threads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from grndist.data.normalise import ExpressionConfig
from grndist.data.view import View
from grndist.evaluation.interventional.cells import Groups, InterventionError, groups_of, perturbed_genes
from grndist.evaluation.interventional.effects import p_values
from grndist.evaluation.interventional.kernels import compare_all
from grndist.parallel import for_each, pieces

TARGETS = 64  # of a chunk of an atlas: blocks are whole chunks
AT_ONCE = 8  # targets to a thread's turn

Matrix = Float64[np.ndarray, "regulators targets"]


@dataclass(frozen=True, eq=False)
class Block:
    """Effects of all perturbed genes on some targets."""

    p: Matrix
    wasserstein: Matrix
    log_fold_change: Matrix


def screened(view: View) -> Groups:
    """The control cells, and those of every gene that is the only one perturbed in some.

    Raises:
        InterventionError: there are none of either.
    """
    perturbed = perturbed_genes(view)
    if not perturbed:
        raise InterventionError(f"{view.place}: no gene is perturbed in these {view.n_cells:,} cells; choose others")
    return groups_of(view, perturbed)


def blocks_of(groups: Groups, n_targets: int, memory: int) -> list[slice]:
    """Targets in blocks whose expression takes about `memory` bytes, or TARGETS of them where those take more."""
    size = max(memory // (4 * groups.view.n_cells) // TARGETS, 1) * TARGETS
    return pieces(n_targets, size)


def effects_on(groups: Groups, genes: Int64[np.ndarray, " targets"], config: ExpressionConfig) -> Block:
    """The effects on some genes of the panel: one pass over the cells."""
    values = groups.values(genes, config)
    p, wasserstein, change = np.empty((3, len(groups.regulators), len(genes)))

    def compare(_: int, part: slice) -> None:
        found = _compared(groups, values[part])
        p[:, part], wasserstein[:, part], change[:, part] = found

    for_each(pieces(len(genes), AT_ONCE), compare)
    return Block(p, wasserstein, change)


def _compared(
    groups: Groups, values: Float32[np.ndarray, "targets cells"]
) -> Float64[np.ndarray, "3 regulators targets"]:
    """P, distance and difference of means."""
    shape = len(values), len(groups.regulators)
    found = np.empty((*shape, 4))
    compare_all(values, groups.n_controls, groups.bounds, found)
    row, group = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    p = p_values(groups, values, group, row, found.reshape(-1, 4)).reshape(shape)
    return np.stack([p.T, found[:, :, 2].T, found[:, :, 3].T])
