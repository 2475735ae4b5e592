"""A batch's non-zero values sent to a device and made dense there: a fifth of the bytes travel."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Sparse:
    """Rows of a matrix, one after the other: `lengths[i]` values and their columns for row i."""

    data: Shaped[np.ndarray, " values"]
    indices: Shaped[np.ndarray, " values"]
    lengths: Int64[np.ndarray, " cells"]


def dense_on(
    device: torch.device,
    rows: Sparse,
    scale: Float[np.ndarray, " cells"] | None,
    slot: Int64[np.ndarray, " all_genes"],
    n_genes: int,
) -> Float32[Tensor, "cells genes"]:
    """As `kernels.densify` and `kernels.densify_log1p`, on `device`, with float32 logarithms."""
    place = _sent(slot, device)[_sent(rows.indices, device).long()]
    cell = torch.repeat_interleave(_sent(rows.lengths, device))
    kept = place >= 0
    place, cell = place[kept], cell[kept]
    values = _sent(rows.data, device)[kept].float()
    if scale is not None:
        values = torch.log1p(values * _sent(scale, device)[cell]).float()
    out = torch.zeros(len(rows.lengths), n_genes, device=device)
    out[cell, place] = values
    return out


WIDER = {  # PyTorch hardly knows these types: how they travel, what they become there, and the bits that count
    np.dtype(np.uint16): (np.int16, torch.int32, 2**16 - 1),
    np.dtype(np.uint32): (np.int32, torch.int64, 2**32 - 1),
}


def _sent(values: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device, through pinned memory if it is a GPU."""
    travels, wide, bits = WIDER.get(values.dtype, (values.dtype, None, 0))
    here = torch.from_numpy(values.view(travels))
    if device.type == "cuda":
        here = here.pin_memory()
    there = here.to(device, non_blocking=True)
    return there if wide is None else there.to(wide) & bits
