"""The same numbers as the plain form: networks of one number by tables, (I - A)^-1 by solves."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from grndist.models.grn_vae.equations import structural
from grndist.models.grn_vae.plain import Restored
from grndist.models.grn_vae.solve import Factor
from grndist.models.grn_vae.tables import Table, evaluate, tabulated


class Tables:
    """What stands for a network; kept from step to step while the network is frozen."""

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self._version: list[tuple[int, int]] = []
        self._kept: dict[tuple[float, float, int], Table | None] = {}

    def outputs(self, network: nn.Sequential, x: Float[Tensor, "..."]) -> Float[Tensor, "outputs ..."]:
        """The network's outputs for every entry of `x`, by a table where that is good and pays."""
        table = self._table(network, x) if self.tolerance > 0 and x.numel() else None
        return evaluate(network, x).movedim(-1, 0) if table is None else table.at(x)

    def _table(self, network: nn.Sequential, x: Tensor) -> Table | None:
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in network.parameters()):
            self._kept = {}
            return tabulated(network, x, self.tolerance)
        version = [(parameter.data_ptr(), parameter._version) for parameter in network.parameters()]
        if self._version != version:
            self._version, self._kept = version, {}
        low, high = (float(end) for end in torch.aminmax(x.detach()))
        place = (low // 1, -(-high // 1), x.numel())
        if place not in self._kept:
            self._kept[place] = tabulated(network, x, self.tolerance)
        return self._kept[place]


def restored(
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    x: Float[Tensor, "cells genes"],
    noise: Float[Tensor, "cells genes"],
    a: Float[Tensor, "regulators genes"],
    at: Int64[Tensor, " regulators"] | None,
    prior: Float[Tensor, "2 genes"] | None,
    factor: Factor,
    tables: tuple[Tables, Tables],
) -> Restored:
    """As `plain.restored`, given the factor of I - A_RR and the tables of the encoder and the decoder."""
    cells = len(x)
    encoded = tables[0].outputs(encoder, x)  # [2, cells, genes]
    rows = encoded.flatten(0, 1) if prior is None else torch.cat([encoded.flatten(0, 1), prior])
    latent = structural(rows, noise, a, at, factor)
    mean, log_var = latent.taken_out[:cells], latent.taken_out[cells : 2 * cells]
    (decoded,) = tables[1].outputs(decoder, latent.put_back)
    return Restored(
        mean, log_var, latent.z, decoded, None if prior is None else latent.taken_out[2 * cells :], latent.size
    )
