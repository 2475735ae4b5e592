"""Workers as processes of torch.distributed: how what each of them found in a step is added up.

After this every worker has the same bits, so that optimisers that start alike stay alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor, nn

from grndist.optim.blocks import taken_block
from grndist.workers import Workers

LARGE = 2**20  # numbers from which on a tensor travels by itself: a copy would cost more than a message


@dataclass
class Group:
    """The default process group, seen from this process. It must exist, and outlive this."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # that its backend works on
    bytes_sent: int = 0  # size of all that was added up or broadcast so far, counted once for all workers

    @property
    def rank(self) -> int:
        """Which of the workers this is, from 0."""
        return dist.get_rank()

    @property
    def count(self) -> int:
        """How many there are."""
        return dist.get_world_size()

    def total(self, *values: Tensor) -> list[Tensor]:
        """See `Workers`; one message for all of them."""
        flat = torch.cat([value.detach().reshape(-1) for value in values]).to(self.device)
        self._all_reduce(flat)
        parts = flat.split([value.numel() for value in values])
        return [part.view(value.shape).to(value.device) for part, value in zip(parts, values, strict=True)]

    def add_up(self, *values: Tensor) -> None:
        """See `Workers`; one message for all but the large ones."""
        large = [value for value in values if value.numel() >= LARGE and value.is_contiguous()]
        alone = {id(value) for value in large}
        small = [value for value in values if id(value) not in alone]
        for value, total in zip(small, self.total(*small) if small else [], strict=True):
            value.copy_(total)
        for value in large:
            self._all_reduce(value)

    def broadcast(self, content: bytes | None = None) -> bytes:
        """What worker 0 gives, to all workers."""
        size = torch.tensor([0 if content is None else len(content)], device=self.device)
        dist.broadcast(size, src=0)
        if self.rank == 0 and content:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)
        else:
            sent = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        if len(sent):
            dist.broadcast(sent, src=0)
        self.bytes_sent += sent.nbytes
        return sent.cpu().numpy().tobytes()

    def _all_reduce(self, values: Tensor) -> None:
        dist.all_reduce(values)
        self.bytes_sent += values.nbytes


def added_up(
    shares: Float[Tensor, " terms"], model: nn.Module, genes: Int64[Tensor, " genes"], workers: Workers
) -> Float[Tensor, " terms"]:
    """The sums of this step's loss terms over the workers; the gradients of `model` become their sums, too.

    A step leaves gradients in the same parameters on every worker, since one without cells has a loss as well, and none
    where no worker's loss depends on a parameter. Of a block or of some rows, only those travel.
    """
    if workers.count == 1:
        return shares
    values, found = shares.clone(), _gradients(model, genes)
    parts = [gradient if rows is None else gradient[rows] for gradient, rows in found]
    workers.add_up(values, *parts)
    for (gradient, rows), part in zip(found, parts, strict=True):
        if rows is not None:
            gradient[rows] = part
    return values


def _gradients(model: nn.Module, genes: Int64[Tensor, " genes"]) -> list[tuple[Tensor, Tensor | None]]:
    """Those that the last step has left, of blocks or of parameters; and the rows outside of which they are 0."""
    touched_rows = cast("Callable[[Tensor], list[tuple[nn.Parameter, Tensor]]]", model.touched_rows)
    rows = {id(parameter): rows for parameter, rows in touched_rows(genes) if len(rows) < len(parameter)}
    found = []
    for parameter in model.parameters():
        block = taken_block(parameter)
        gradient = parameter.grad if block is None else block.values.grad
        if gradient is not None:
            found.append((gradient, rows.get(id(parameter))))
    return found
