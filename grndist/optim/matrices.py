"""RMSprop, Adam and AdamW over matrices of which a step may use a block, in one pass over the memory.

Whole steps give the numbers of PyTorch's optimisers of these names. Of a block, only its entries and their moments are
updated, as in torch.optim.SparseAdam: those of the others do not decay meanwhile. The bias correction counts the steps
of the whole parameter, not those of an entry.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from grndist.optim import kernels
from grndist.optim.blocks import taken_block
from grndist.optim.passes import Rule, over_block, over_whole


def _rmsprop(
    values: Tensor, gradient: Tensor, square: Tensor, rate: float, kept: float, new: float, epsilon: float
) -> None:
    square.mul_(kept).addcmul_(gradient, gradient, value=new)
    values.addcdiv_(gradient, square.sqrt().add_(epsilon), value=-rate)


def _adam(
    values: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, rate: float, of_mean: float, kept: float,
    new: float, root: float, epsilon: float, left: float,
) -> None:  # fmt: skip
    mean.lerp_(gradient, of_mean)
    square.mul_(kept).addcmul_(gradient, gradient, value=new)
    values.mul_(left).addcdiv_(mean, square.sqrt().div_(root).add_(epsilon), value=-rate)


class _OfMatrices(torch.optim.Optimizer):
    rule: ClassVar[Rule]
    moments: ClassVar[tuple[str, ...]]  # matrices of the parameter's shape that the rule keeps

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient, or a block that has one."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None or taken_block(parameter) is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        block, state = taken_block(parameter), self.state[parameter]
        if not state:
            state |= {"step": 0} | {name: torch.zeros_like(parameter) for name in self.moments}
        state["step"] += 1
        numbers, moments = self.numbers(group, state["step"]), [state[name] for name in self.moments]
        if block is not None:
            over_block(self.rule, block, [parameter, *moments], numbers)
        elif parameter.grad is not None:
            over_whole(self.rule, [parameter, parameter.grad.contiguous(), *moments], numbers)

    @classmethod
    @abstractmethod
    def numbers(cls, group: dict[str, Any], steps: int) -> tuple[float, ...]:
        """What the rule is given beside matrices, after so many steps."""


class RMSprop(_OfMatrices):
    """RMSprop as PyTorch's is by default."""

    rule = Rule(kernels.rmsprop, kernels.rmsprop_block, _rmsprop)
    moments = ("square_avg",)

    def __init__(self, parameters: list[nn.Parameter], lr: float):
        super().__init__(parameters, {"lr": lr, "alpha": 0.99, "eps": 1e-8})

    @classmethod
    def numbers(cls, group: dict[str, Any], steps: int) -> tuple[float, ...]:
        """See `_OfMatrices`."""
        return group["lr"], group["alpha"], 1 - group["alpha"], group["eps"]


class Adam(_OfMatrices):
    """Adam, and with a decay, which is decoupled, AdamW. Of a block, only its entries decay."""

    rule = Rule(kernels.adam, kernels.adam_block, _adam)
    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ):
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay})

    @classmethod
    def numbers(cls, group: dict[str, Any], steps: int) -> tuple[float, ...]:
        """See `_OfMatrices`."""
        rate, (first, second) = group["lr"], group["betas"]
        root, left = math.sqrt(1 - second**steps), 1 - rate * group["weight_decay"]
        return rate / (1 - first**steps), 1 - first, second, 1 - second, root, group["eps"], left
