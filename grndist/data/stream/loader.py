"""Batches of a view in the order of a plan: `batch_at(step)` starts anywhere.

Windows of cells are decoded ahead (`windows`); a batch is cut from them by compiled loops (`kernels`) that do what
`normalise` defines. On a GPU the non-zero values travel and become dense there.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from grndist.data.normalise import ExpressionConfig, Moments, moments
from grndist.data.stream import kernels
from grndist.data.stream.batch import Batch
from grndist.data.stream.buffers import Buffers
from grndist.data.stream.device import Sparse, dense_on
from grndist.data.stream.plan import Cells, Piece, Plan, streams_of
from grndist.data.stream.windows import Key, Window, Windows, read_window
from grndist.data.view import View

Columns = Int64[np.ndarray, " genes"]
Cut = list[tuple[Window, Int64[np.ndarray, " _"]]]  # windows, and which of their rows a batch takes
CPU = torch.device("cpu")


@dataclass
class Loader:
    """Cuts the float32 batches of one worker; hold no more batches than you need, their memory is used again."""

    view: View
    plan: Plan
    config: ExpressionConfig
    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    ahead: bool = True  # decode windows in the background before they are asked for
    moments: Moments | None = None  # that z-scores are taken with; None: those of the view
    _buffers: Buffers = field(default_factory=Buffers)

    def batch_at(self, step: int) -> Batch:
        """The batch of global step `step`, counted from 0 over all epochs.

        Raises:
            StoreError: the store is damaged, or was deleted while it is read.
        """
        epoch, step = divmod(step, self.plan.steps_per_epoch)
        logical = streams_of(self.rank, self.world, self.plan.streams)
        shares = {stream: self.plan.share(epoch, step, stream) for stream in logical}
        pieces = [(Key(epoch, stream, piece.window), piece) for stream, share in shares.items() for piece in share]
        cells = np.concatenate([np.empty(0, dtype=np.int64), *(piece.cells for _, piece in pieces)])
        genes = self.plan.genes(epoch, step)
        windows = self._windows.get([key for key, _ in pieces], self._following(epoch, shares))
        cut = [(window, window.places(piece.cells)) for window, (_, piece) in zip(windows, pieces, strict=True)]
        values, nonzero = self._expression(cut, cells, genes)
        return Batch(
            expression=values,
            genes=torch.from_numpy(genes).to(self.device),
            perturbed=torch.from_numpy(self.view.perturbed[cells]).to(self.device),
            labels=torch.from_numpy(self.view.label_of_cell[cells]).to(self.device),
            shares=tuple((stream, sum(len(piece.cells) for piece in share)) for stream, share in shares.items()),
            seed=self.plan.seed,
            epoch=epoch,
            step=step,
            stored_nonzero=nonzero,
        )

    def held(self) -> int:
        """Bytes of the windows and batches that it holds."""
        return self._buffers.held()

    def _following(self, epoch: int, shares: dict[int, list[Piece]]) -> list[Key]:
        """The window after the last one of each stream, in the next epoch if need be."""
        keys = []
        for stream, share in shares.items():
            after = share[-1].window + 1 if share else 0
            last = after >= self.plan.windows(epoch, stream)
            keys.append(Key(epoch + 1, stream, 0) if last else Key(epoch, stream, after))
        return keys

    @cached_property
    def _windows(self) -> Windows:
        return Windows(partial(_read, self.view, self.plan, self._buffers), self.ahead)

    def _expression(
        self, cut: Cut, cells: Cells, genes: Columns
    ) -> tuple[Float32[Tensor, "cells genes"], Tensor | None]:
        """Values as the configuration wants them, and which are non-zero if that cannot be seen from them."""
        scale = self._scale(cut, cells)
        slot = self._slot(genes)
        if self.device.type == "cpu":
            values = torch.from_numpy(self._dense(cut, scale, slot, len(cells), len(genes)))
        else:
            values = dense_on(self.device, self._sparse(cut), scale, slot, len(genes))
        if not self.config.cell_minmax and self.config.zscore == "none":
            return values, None
        nonzero = values != 0
        if self.config.cell_minmax:
            low, high = (torch.from_numpy(bound).to(values) for bound in self._bounds(cut, scale, len(cells)))
            values.sub_(low[:, None]).div_(torch.where(high > low, high - low, 1)[:, None])
        if self.config.zscore != "none":
            mean, deviation = (torch.from_numpy(part[genes]).to(values) for part in self._moments)
            values.sub_(mean).div_(deviation)
            if self.config.clip is not None:
                values.clamp_(-self.config.clip, self.config.clip)
        return values, nonzero

    def _scale(self, cut: Cut, cells: Cells) -> Float[np.ndarray, " cells"] | None:
        """What each cell's values are multiplied by before log(1 + x); None where there is no logarithm."""
        if self.view.state != "counts" or self.config.transform == "none":
            return None
        if self.config.transform == "log1p":
            totals = self.view.totals[cells]
            return np.divide(self.view.median_total, totals, out=np.zeros_like(totals), where=totals > 0)
        scale, at = np.empty(len(cells)), 0
        for window, places in cut:
            own = scale[at : at + len(places)]
            kernels.clr_scale(window.data, window.indptr, places, self.view.store.n_genes, own)
            at += len(places)
        return scale

    def _slot(self, genes: Columns) -> Int64[np.ndarray, " all_genes"]:
        """Column of a batch for each gene of the store; -1 for genes that are not in it."""
        slot = np.full(self.view.store.n_genes, -1, dtype=np.int64)
        slot[self.view.columns[genes]] = np.arange(len(genes))
        return slot

    def _dense(
        self, cut: Cut, scale: np.ndarray | None, slot: np.ndarray, n_cells: int, n_genes: int
    ) -> Float32[np.ndarray, "cells genes"]:
        out, at = self._buffers.take((n_cells, n_genes), np.dtype(np.float32)), 0
        for window, places in cut:
            own = slice(at, at + len(places))
            if scale is None:
                kernels.densify(window.data, window.indices, window.indptr, places, slot, out[own])
            else:
                kernels.densify_log1p(window.data, window.indices, window.indptr, places, slot, scale[own], out[own])
            at += len(places)
        return out

    def _sparse(self, cut: Cut) -> Sparse:
        """The batch's cells as CSR, all genes."""
        each = [window.indptr[places + 1] - window.indptr[places] for window, places in cut]
        lengths = np.concatenate([np.empty(0, dtype=np.int64), *each])
        data, indices = (self._buffers.take((int(lengths.sum()),), dtype) for dtype in self.view.store.dtypes)
        at = 0
        for window, places in cut:
            at += kernels.take_rows(window.data, window.indices, window.indptr, places, data[at:], indices[at:])
        return Sparse(data, indices, lengths)

    def _bounds(
        self, cut: Cut, scale: np.ndarray | None, n_cells: int
    ) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
        """Smallest and largest value of each cell over all genes of the view, transformed."""
        low, high, at = np.empty(n_cells), np.empty(n_cells), 0
        for window, places in cut:
            own = slice(at, at + len(places))
            kernels.row_bounds(window.data, window.indices, window.indptr, places, self._member, low[own], high[own])
            at += len(places)
        return (low, high) if scale is None else (np.log1p(low * scale), np.log1p(high * scale))

    @cached_property
    def _member(self) -> np.ndarray:
        member = np.zeros(self.view.store.n_genes, dtype=np.bool_)
        member[self.view.columns] = True
        return member

    @cached_property
    def _moments(self) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]:
        mean, deviation = self.moments or moments(self.view, self.config)
        return mean, np.where(deviation > 0, deviation, 1.0)


def _read(view: View, plan: Plan, buffers: Buffers, key: Key) -> Window:
    cells = plan.window(*key)
    return read_window(view.store, cells, view.rows[cells], buffers)
