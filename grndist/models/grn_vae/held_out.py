"""How well a trained network predicts cells that it has not seen, with no reference network.

What a model restores of an entry that it is shown says little of the network: the entry itself is among the inputs. Nor
does hiding the entry, since one that was set to zero is taken for a zero. Here every entry is predicted from the
other genes of its cell, by the Gaussian that the structural equations describe.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from grndist.data.stream.batch import Batch
from grndist.models.grn_vae.augmentation import standardised
from grndist.models.grn_vae.fast import Tables
from grndist.models.grn_vae.model import GRNVAE


@torch.no_grad()
def error_from_others(model: GRNVAE, batches: Iterable[Batch]) -> float:
    """The mean squared error of real non-zero entries, as z-scores, each predicted from its cell's other genes.

    Nothing is augmented. A batch of some of the genes is predicted from these alone, as it would be trained on.
    """
    tables = Tables(model.config.table_tolerance), Tables(model.config.table_tolerance)
    total, count = 0.0, 0
    for batch in batches:
        genes, real = batch.genes, batch.is_nonzero
        x = standardised(batch.expression, model.mean[genes], model.std[genes], model.config.clip)
        h = from_others(tables[0].outputs(model.encoder, x)[0], *model.block(genes), model.prior(genes))
        error = (tables[1].outputs(model.decoder, h)[0] - x).square()
        total += float(error[real].sum(dtype=torch.float64))
        count += int(real.sum())
    return total / max(count, 1)


def from_others(
    h: Float[Tensor, "cells genes"],
    a: Float[Tensor, "regulators genes"],
    at: Int64[Tensor, " regulators"] | None,
    prior: Float[Tensor, "2 genes"] | None,
) -> Float[Tensor, "cells genes"]:
    """Every entry of h as the others of its cell predict it.

    With h = m + z (I - A)^-1 and z ~ N(0, D), h is Gaussian of precision P = (I - A) D^-1 (I - A)^T, and the mean of
    h_g given the others is h_g - ((h - m) P)_g / P_gg. P itself is not formed.

    Args:
        h: what the encoder makes of the cells; means.
        a: 0 where a regulator meets itself.
        at: columns of the regulators; None: every gene is one.
        prior: m, and the logarithm of D before regulation is taken out; None: 0 and I.
    """
    mean, log_variance = h.new_zeros(2, 1, h.shape[1]) if prior is None else prior[:, None]
    regulators = slice(None) if at is None else at
    certainty = (log_variance[:, regulators] @ a - log_variance).exp()  # D^-1
    rest = h - mean
    z = (rest - rest[:, regulators] @ a) * certainty
    diagonal = certainty[0].clone()  # of P
    diagonal[regulators] += a.square() @ certainty[0]
    product = z.clone()
    product[:, regulators] -= z @ a.T
    return h - product / diagonal
