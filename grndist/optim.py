"""Parameter groups, their optimisers and when each of them is stepped. Lion itself comes from lion-pytorch."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lion_pytorch import Lion
from pydantic import Field
from torch import nn

from grndist.config import Config


class OptimizerConfig(Config):
    """How parameters are updated. Models have a group "networks" and may have a group "adjacency"."""

    optimizer: Literal["lion", "adamw", "adam", "rmsprop"]
    learning_rate: float = Field(gt=0)
    adjacency_learning_rate: float | None = Field(None, gt=0, description="null: the same as learning_rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, on all parameters (lion, adamw)")
    betas: tuple[float, float] = Field((0.9, 0.999), description="momentum and second moment (not rmsprop)")
    schedule: Literal["joint", "alternating"] = Field(
        "joint", description="alternating: network_epochs of the networks alone, then adjacency_epochs of the adjacency"
    )
    network_epochs: int = Field(1, gt=0, description="K1")
    adjacency_epochs: int = Field(1, gt=0, description="K2")
    rate_over_time: Literal["constant", "one_cycle"] = Field(
        "constant", description="one_cycle: up by a cosine to learning_rate, then down to nearly nothing at the end"
    )
    warmup: float = Field(0.1, gt=0, lt=1, description="share of the steps in which a one_cycle rate goes up")
    halve_at_steps: tuple[int, ...] = Field((), description="steps at which the learning rate is halved")
    halve_groups: Literal["all", "networks"] = "all"


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
            trained = name in self._trained(epoch)
            for parameter in parameters:
                parameter.requires_grad_(trained)
                parameter.grad = None
            self.optimizers[name].param_groups[0]["lr"] = self._rate(name, step)

    def step(self, epoch: int) -> None:
        """Update the groups of this epoch; the momentum of the others stays as it is."""
        for name in self._trained(epoch):
            self.optimizers[name].step()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """State of every group's optimiser."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Inverse of `state_dict`."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def _trained(self, epoch: int) -> list[str]:
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
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=config.learning_rate)
    kinds: dict[str, Any] = {"lion": Lion, "adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    decay = {} if config.optimizer == "adam" else {"weight_decay": config.weight_decay}
    return kinds[config.optimizer](parameters, lr=config.learning_rate, betas=config.betas, **decay)
