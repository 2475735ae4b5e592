"""A CaTran-D from what is known of the training cells: standardised, started or solved, with its effects."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from threadpoolctl import threadpool_limits
from torch import Tensor

from grndist.data import moments
from grndist.data.facts import Facts
from grndist.data.moments import Standardised, Sums, effects, observed_strength, standardised
from grndist.data.perturbations import Perturbations, perturbations_of
from grndist.data.stream.batch import MomentsBatch
from grndist.errors import UserError
from grndist.models.catran_d.config import CaTranDConfig
from grndist.models.catran_d.model import CaTranD, Sizes
from grndist.models.catran_d.solve import optimum, precision, residual
from grndist.models.catran_d.weights import Bilinear, Full
from grndist.models.layers import fill


@dataclass(frozen=True)
class Built:
    """A fresh model and, where it learns from them, the moments of all cells."""

    model: CaTranD
    batch: MomentsBatch | None
    unmeasured: tuple[str, ...]  # perturbed genes that regulate but are not in the panel


def from_facts(config: CaTranDConfig, facts: Facts, seed: int) -> Built:
    """A model for these cells; in the full form it is the optimum already.

    Raises:
        UserError: a start that is taken from moments, where there are none.
    """
    if config.form == "bilinear" and config.start == "svd" and not facts.products:
        raise UserError("model.start=svd is taken from moments, and this run learns from cells; set model.start=random")
    perturbations = perturbations_of(facts.view, config.unmeasured)
    sums = facts.sums(perturbations)
    if config.strength == "observed":
        perturbations = replace(perturbations, strength=observed_strength(sums, perturbations))
    model = _with_effects(config, sums, perturbations, seed)
    found = standardised(sums, perturbations, config.gain)
    _fill(model, perturbations, found)
    if found.second is None or found.cross is None:
        return Built(model, None, perturbations.unmeasured)
    del sums  # with its products, as large as what was made of them
    batch = _batch(found.second, found.cross, found.target_square, found.n_cells)
    with threadpool_limits(torch.get_num_threads(), "blas"):  # SciPy's does not know of torch's
        _calibrate(model, found.second, found.cross, found.target_square, seed)
    return Built(model, batch, perturbations.unmeasured)


def bytes_needed(config: CaTranDConfig, n_genes: int, n_inputs: int, n_labels: int) -> int:
    """Peak memory of learning from moments, of which each stage needs its own; nothing that grows slower."""
    squares, heads = n_inputs * (n_inputs + n_genes), config.heads if config.form == "attention" else 0
    weights = n_genes * n_inputs * (8 if config.form in ("bilinear", "attention") else 16)
    effect = 4 * n_labels * n_genes
    return effect + max(
        8 * n_genes * (n_genes + 2 * n_labels),  # the effects, of the sums
        moments.bytes_needed(n_genes, n_inputs, n_labels),
        12 * squares + weights,  # the optimum; float32 moments beside those in float64
        4 * squares + 24 * heads * n_genes * n_inputs,  # what a step keeps for its gradients
    )


def _with_effects(config: CaTranDConfig, sums: Sums, perturbations: Perturbations, seed: int) -> CaTranD:
    effect = effects(sums, perturbations)
    labels, guides = perturbations.members.shape
    sizes = Sizes(perturbations.n_genes, perturbations.n_inputs, labels, guides, len(effect.inputs))
    model = CaTranD(config, sizes, seed)
    fill(model.effect, effect.z)
    fill(model.effect_input, effect.inputs)
    return model


def _fill(model: CaTranD, perturbations: Perturbations, found: Standardised) -> None:
    fill(model.mean, found.mean)
    fill(model.deviation, found.deviation)
    fill(model.members, perturbations.members)
    fill(model.strength, perturbations.strength)
    fill(model.reach, np.sqrt(found.input_square))
    fill(model.residual, np.sqrt(np.where(found.target_square > 0, found.target_square, 1)))


def _calibrate(
    model: CaTranD,
    second: Float64[np.ndarray, "inputs inputs"],
    cross: Float64[np.ndarray, "targets inputs"],
    target_square: Float64[np.ndarray, " targets"],
    seed: int,
) -> None:
    """Scales of partial correlation from the full optimum, which is also the full form's answer; `second` is lost."""
    config = model.config
    if isinstance(model.weights, Bilinear) and config.start == "svd":
        alone = cross / np.maximum(second.diagonal(), 1e-12)
        np.fill_diagonal(alone, 0.0)
        model.weights.start_from(alone, seed)
        del alone
    inverse = precision(second, config.ridge)
    weights = optimum(inverse, cross)
    fill(model.reach, 1 / np.sqrt(inverse.diagonal()))
    fill(model.residual, residual(weights, cross, target_square, config.ridge / config.gain**2))
    if isinstance(model.weights, Full):
        fill(model.weights.weight, weights)


def _batch(second: np.ndarray, cross: np.ndarray, target_square: np.ndarray, n_cells: int) -> MomentsBatch:
    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))

    genes = torch.arange(len(cross))
    return MomentsBatch(tensor(second), tensor(cross), tensor(target_square), genes, n_cells, epoch=0, step=0)
