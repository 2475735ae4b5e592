"""Small batches for the tests of models."""

import numpy as np
import torch

from grndist.data.stream.batch import Batch


def batch_of(
    n_cells: int,
    genes: list[int],
    perturbed: list[int] | None = None,
    counts: list[int] | None = None,
    epoch: int = 0,
    step: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Batch:
    """Exponential values with 40 % zeros; a third of the cells are controls unless `perturbed` says otherwise."""
    rng = np.random.default_rng([seed, epoch, step])
    values = rng.exponential(size=(n_cells, len(genes))) * (rng.random((n_cells, len(genes))) > 0.4)
    labels = rng.choice([-1, genes[0], genes[-1]], size=n_cells) if perturbed is None else np.array(perturbed)
    return Batch(
        expression=torch.from_numpy(values).to(dtype),
        stored_nonzero=torch.from_numpy(values != 0),
        genes=torch.tensor(genes),
        perturbed=torch.from_numpy(labels.astype(np.int64)),
        labels=torch.from_numpy(np.searchsorted(np.unique(labels), labels)),
        shares=tuple(enumerate(counts or [n_cells])),
        seed=seed,
        epoch=epoch,
        step=step,
    )
