"""Pieces that models share: initial values from named streams, and per-gene networks."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from grndist.errors import UserError
from grndist.workers import Workers


class ModelError(UserError):
    """A model cannot be trained in this way."""


def refuse_several(workers: Workers) -> None:
    """Raise where a form that only one process can train is to be trained by more.

    Raises:
        ModelError: there are several workers.
    """
    if workers.count > 1:
        raise ModelError(
            f"model.form=plain is trained by one process, and there are {workers.count} workers; set model.form=fast, "
            "which gives the same numbers, or train without workers"
        )


def fill(parameter: Tensor, values: np.ndarray) -> None:
    """Copy `values` into a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


def init_normal(linears: Iterable[nn.Linear], std: float, rng: np.random.Generator) -> None:
    """Weights from N(0, std^2), biases 0."""
    for linear in linears:
        fill(linear.weight, rng.normal(0.0, std, linear.weight.shape))
        nn.init.zeros_(linear.bias)


def init_xavier(linears: Iterable[nn.Linear], rng: np.random.Generator) -> None:
    """Weights from N(0, 2 / (inputs + outputs)) (Glorot and Bengio 2010), biases 0."""
    for linear in linears:
        init_normal([linear], (2.0 / (linear.in_features + linear.out_features)) ** 0.5, rng)


def scalar_network(width: int, outputs: int, inputs: int = 1) -> nn.Sequential:
    """A network of ONE number, shared by all genes and cells: inputs -> width -> width -> outputs, tanh between.

    With two `inputs` the second is always 1.
    """
    first = nn.Linear(inputs, width)
    return nn.Sequential(first, nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs))


def linears(*modules: nn.Module) -> list[nn.Linear]:
    """Every Linear inside `modules`, in order."""
    return [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)]
