"""The family layer by layer, with an explicit inverse: the definition of the model, and the tests' reference."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


@dataclass(frozen=True)
class Restored:
    """What a batch becomes on its way through the model."""

    mean: Float[Tensor, "cells genes"]  # of z
    log_var: Float[Tensor, "cells genes"]
    z: Float[Tensor, "cells genes"]
    x: Float[Tensor, "cells genes"]  # the decoder's
    prior: Float[Tensor, "2 genes"] | None  # mean and log-variance of z, where networks give them
    size: Float[Tensor, ""]  # sum of |A|


def restored(
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    x: Float[Tensor, "cells genes"],
    noise: Float[Tensor, "cells genes"],
    a: Float[Tensor, "regulators genes"],
    at: Int64[Tensor, " regulators"] | None,
    prior: Float[Tensor, "2 genes"] | None,
) -> Restored:
    """Encode, take regulation out, draw z, put regulation back, decode.

    Args:
        encoder: of one number: its latent mean and log-variance.
        decoder: of one latent number: the expression.
        x: standardised expression.
        noise: standard normal.
        a: regulation; what a regulator does to itself is not looked at.
        at: columns of the regulators; None: every gene is one.
        prior: of the latent layer, before regulation is taken out.
    """
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    square = (a if at is None else torch.zeros_like(eye).index_copy(0, at, a)) * (1 - eye)  # [genes, genes]
    mean, log_var = (channel @ (eye - square) for channel in network_of_one_number(encoder, x))
    z = mean + (0.5 * log_var).exp() * noise
    decoded = network_of_one_number(decoder, z @ torch.linalg.inv(eye - square))[0]
    return Restored(mean, log_var, z, decoded, None if prior is None else prior @ (eye - square), square.abs().sum())


def network_of_one_number(network: nn.Sequential, x: Float[Tensor, "..."]) -> Float[Tensor, "outputs ..."]:
    """Its outputs for every entry of `x`; one that takes two inputs is given a 1 beside it."""
    first = network[0]
    constant = [torch.ones_like(x)] * (first.in_features - 1) if isinstance(first, nn.Linear) else []
    return network(torch.stack([x, *constant], dim=-1)).movedim(-1, 0)
