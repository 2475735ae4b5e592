"""Parameter groups, their optimisers and when each of them is stepped. Lion itself comes from lion-pytorch."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lion_pytorch import Lion
from torch import nn

from grndist.optim.blocks import BlockParameter
from grndist.optim.config import OptimizerConfig
from grndist.optim.dense import DenseLion
from grndist.optim.matrices import Adam, RMSprop

PLAIN: dict[str, Any] = {
    "lion": Lion,
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}
OF_BLOCKS: dict[str, Any] = {"lion": DenseLion, "adamw": Adam, "adam": Adam, "rmsprop": RMSprop}


class Optimizers:
    """One optimiser a group. What is trained at which rate is a function of (epoch, step), not of state."""

    def __init__(self, config: OptimizerConfig, groups: Mapping[str, list[nn.Parameter]], steps: int = 0):
        """Args: see the classes; `steps` is the length of the whole training, which only a one_cycle rate depends on.

        Raises:
            ValueError: a one_cycle rate over a training of unknown length.
        """
        if config.rate_over_time == "one_cycle" and steps < 1:
            raise ValueError(f"a one_cycle rate is spread over all steps of the training, and steps is {steps}")
        self.config = config
        self.steps = steps
        self.groups = groups
        self.optimizers = {name: _optimizer(config, parameters) for name, parameters in groups.items()}

    def prepare(self, epoch: int, step: int) -> None:
        """Freeze the groups that this epoch leaves alone, and set the learning rates of this (global) step."""
        for name, parameters in self.groups.items():
            trained = name in self.trained(epoch)
            for parameter in parameters:
                parameter.requires_grad_(trained)
                parameter.grad = None
                if isinstance(parameter, BlockParameter):
                    parameter.block = None
            self.optimizers[name].param_groups[0]["lr"] = self._rate(name, step)

    def step(self, epoch: int) -> None:
        """Update the groups of this epoch; the momentum of the others stays as it is."""
        for name in self.trained(epoch):
            self.optimizers[name].step()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """State of every group's optimiser."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Inverse of `state_dict`."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def trained(self, epoch: int) -> list[str]:
        """All groups, unless there are two that take turns."""
        if self.config.schedule == "joint" or len(self.groups) < 2:
            return list(self.groups)
        period = self.config.network_epochs + self.config.adjacency_epochs
        return ["networks"] if epoch % period < self.config.network_epochs else ["adjacency"]

    def _rate(self, name: str, step: int) -> float:
        config = self.config
        rate = config.learning_rate
        if name == "adjacency" and config.adjacency_learning_rate is not None:
            rate = config.adjacency_learning_rate
        if config.rate_over_time == "one_cycle":
            rate *= one_cycle(step, self.steps, config.warmup)
        halved = config.halve_groups in {"all", name}
        return rate * 0.5 ** (sum(step >= at for at in config.halve_at_steps) if halved else 0)


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at a step of `steps`: from 1/25 up to 1, then down to 1/250,000, both along a cosine.

    The schedule of Smith and Topin (2018) as PyTorch's OneCycleLR has it, but a function of the step.
    """
    peak, last = max(warmup * steps - 1, 0.0), max(steps - 1, 1)
    start, end, done = 1 / 25, 1.0, step / peak if peak > 0 else 1.0
    if step > peak:
        start, end, done = 1.0, 1 / 25e4, (step - peak) / max(last - peak, 1e-9)
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _optimizer(config: OptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    has_blocks = any(isinstance(parameter, BlockParameter) for parameter in parameters)
    kind = (OF_BLOCKS if has_blocks else PLAIN)[config.optimizer]
    momentum = {} if config.optimizer == "rmsprop" else {"betas": config.betas}
    decay = {"weight_decay": config.weight_decay} if config.optimizer in {"lion", "adamw"} else {}
    optimizer: torch.optim.Optimizer = kind(parameters, lr=config.learning_rate, **momentum, **decay)
    return optimizer
