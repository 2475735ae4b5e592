"""Parameters and moments of several alike models side by side, so that one operation can work on all of them.

The models and their optimisers go on seeing what is theirs as they always did: they can be saved, validated and asked
for their network after any step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from lion_pytorch import Lion
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from grndist.optim import kernels
from grndist.optim.groups import Optimizers
from grndist.optim.matrices import Adam, RMSprop


class _Arithmetic(NamedTuple):
    """What an optimiser does."""

    kernel: Callable[..., None]  # over models, values, gradient, moments and numbers
    moments: tuple[str, ...]
    numbers: Callable[[dict[str, Any], int], tuple[float, ...]]  # from its settings, after so many steps


def _lion_numbers(group: dict[str, Any], steps: int) -> tuple[float, ...]:
    rate, (first, second) = group["lr"], group["betas"]
    return rate, first, 1 - first, second, 1 - second, 1 - rate * group["weight_decay"]


_ADAM = _Arithmetic(kernels.adam_of_models, Adam.moments, Adam.numbers)
ARITHMETIC: Mapping[str, _Arithmetic] = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "rmsprop": _Arithmetic(kernels.rmsprop_of_models, RMSprop.moments, RMSprop.numbers),
    "lion": _Arithmetic(kernels.lion_of_models, ("exp_avg",), _lion_numbers),
}


class _Parameter(NamedTuple):
    """One parameter of every model."""

    own: list[nn.Parameter]  # a row of `leaf` each
    leaf: Float[Tensor, "models ..."]
    moments: list[Float[Tensor, "models ..."]]
    steps: Float[Tensor, " models"]  # taken so far


class Stacked:
    """The parameters of models on a CPU that have the same groups, and optimisers of one kind."""

    def __init__(self, models: Sequence[nn.Module], optimizers: Sequence[Optimizers]):
        self.optimizers = optimizers
        self._arithmetic = ARITHMETIC[optimizers[0].config.optimizer]
        self._groups = {
            group: [self._side_by_side(group, number) for number in range(len(parameters))]
            for group, parameters in optimizers[0].groups.items()
        }
        leaves = {id(each.own[0]): each.leaf for group in self._groups.values() for each in group}
        named = models[0].named_parameters()
        self.parameters = {  # [models, ...], by the names that a model has for them
            name: leaves[id(parameter)] for name, parameter in named if id(parameter) in leaves
        }

    def prepare(self, epoch: int, step: int) -> None:
        """Make ready for the gradients of this epoch's groups, and set the learning rates of this (global) step."""
        for optimizers in self.optimizers:
            optimizers.prepare(epoch, step)
        trained = self.optimizers[0].trained(epoch)
        for name, group in self._groups.items():
            for parameter in group:
                parameter.leaf.grad = None
                parameter.leaf.requires_grad_(name in trained)

    def step(self, epoch: int, models: Sequence[int]) -> None:
        """Update this epoch's groups, of some of the models."""
        at = np.array(models, dtype=np.int64)
        for name in self.optimizers[0].trained(epoch):
            for parameter in self._groups[name]:
                if parameter.leaf.grad is not None:
                    self._update(name, parameter, at)

    def _update(self, group: str, parameter: _Parameter, models: Int64[np.ndarray, " models"]) -> None:
        own = [optimizers.optimizers[group] for optimizers in self.optimizers]
        parameter.steps[torch.from_numpy(models)] += 1
        steps = [int(count) for count in parameter.steps.tolist()]
        numbers = [
            self._arithmetic.numbers(optimizer.param_groups[0], max(count, 1))
            for optimizer, count in zip(own, steps, strict=True)
        ]
        assert parameter.leaf.grad is not None
        tensors = [parameter.leaf.detach(), parameter.leaf.grad.contiguous(), *parameter.moments]
        arrays = [tensor.view(len(own), -1).numpy() for tensor in tensors]
        with np.errstate(over="ignore"):  # a rate that is too large ends its own run, as any other that diverges
            rows = np.array(numbers, dtype=arrays[0].dtype)
        self._arithmetic.kernel(models, *arrays, rows)
        for at in models:
            increment_version(parameter.own[at])
            if isinstance(own[at], Adam | RMSprop):  # which count in integers
                own[at].state[parameter.own[at]]["step"] = steps[at]

    def _side_by_side(self, group: str, number: int) -> _Parameter:
        """Move a parameter and its moments into memory that the models share."""
        own = [optimizers.groups[group][number] for optimizers in self.optimizers]
        leaf, steps = torch.stack([parameter.detach() for parameter in own]), torch.zeros(len(own))
        moments = [torch.zeros_like(leaf) for _ in self._arithmetic.moments]
        for at, (parameter, optimizers) in enumerate(zip(own, self.optimizers, strict=True)):
            parameter.data = leaf[at]
            rows = dict(zip(self._arithmetic.moments, (moment[at] for moment in moments), strict=True))
            _share(optimizers.optimizers[group], parameter, rows, steps[at])
        return _Parameter(own, leaf, moments, steps)


def _share(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, moments: dict[str, Tensor], steps: Tensor
) -> None:
    """Make `moments` and `steps` the parameter's state at an optimiser; they take over what is there."""
    state = optimizer.state[parameter]
    for name, row in moments.items():
        if name in state:
            row.copy_(state[name])
    steps.fill_(float(state.get("step", 0)))
    state.update(moments)
    if isinstance(optimizer, Adam | RMSprop):
        state["step"] = int(steps)
    elif not isinstance(optimizer, Lion):
        state["step"] = steps
