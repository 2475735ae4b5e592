"""Small trainings on one process or on several, and all that is compared between them. Runs in processes of its own."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grndist import models
from grndist.data.facts import Facts
from grndist.data.normalise import ExpressionConfig
from grndist.data.store import open_store
from grndist.data.stream.batch import Batch
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import ShuffledPlan, streams_of
from grndist.data.view import whole
from grndist.models import AnyModel
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.optim import OptimizerConfig, Optimizers
from grndist.optim.blocks import put_entries, taken_block
from grndist.training import distributed
from grndist.training.distributed import Group, added_up
from grndist.training.loop import State, held_out_loss, train
from grndist.workers import ALONE, Alone, Workers
from tests.models.batches import batch_of

LARGE = {"embedding": 6, "embedding_std": 0.3, "linear_std": 0.3}
VAE = {"kind": "grn_vae", "width": 12, "sparse_delay": 2}
CASES: dict[str, dict[str, Any]] = {
    "catran": {"kind": "catran", "interventional_weight": 5.0, **LARGE},
    "catran_submission": {
        "kind": "catran", "projection": False, "attention": "sigmoid", "input_layers": 1, "aggregations": 3,
        "output_layers": 1, "reconstruction_loss": "squared", "interventional_loss": "squared",
        "interventional_ratio": "inverted", "interventional_gradient": False, "interventional_min_cells": 4, **LARGE,
    },
    "catran_d": {"kind": "catran_d", "form": "bilinear", "embedding": 6},
    "catran_d_attention": {"kind": "catran_d", "form": "attention", "embedding": 6, "heads": 2},
    "grn_vae": VAE,
    "dazzle": VAE | {"classifier_weight": 0.5, "augment_adjacency_epochs": True, "reconstruction_target": "clean"},
    "deepsem": VAE | {"prior": "networks", "kl": "one_sample", "loss_entries": "all", "augmentation": 0.0},
}  # fmt: skip
OPTIMIZERS = {
    "catran": {"optimizer": "lion", "learning_rate": 1e-3, "weight_decay": 0.05},
    "catran_d": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
    "grn_vae": {"optimizer": "rmsprop", "learning_rate": 1e-3, "schedule": "alternating"},
}
SGD_RATES = {"catran": 0.1, "catran_d": 0.5, "grn_vae": 0.01}


@dataclass(frozen=True)
class Job:
    """One training."""

    store: Path
    case: str
    dtype: torch.dtype
    sgd: bool
    steps: int = 30
    streams: int = 5


@dataclass(frozen=True)
class Outcome:
    """What came of it, as one worker saw it."""

    cells: dict[tuple[int, int], str]  # digest of (step, logical stream)
    genes: list[str]  # digest of every step
    losses: list[dict[str, float]]
    predictions: Tensor
    adjacency: Tensor
    parameters: dict[str, Tensor]
    bytes_sent: int


class SGD(torch.optim.SGD):
    """As PyTorch's, of blocks too: it does not amplify rounding, so parameters can be compared."""

    def step(self, closure: None = None) -> None:
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            block = taken_block(parameter)
            if block is not None:
                parameter.grad = torch.zeros_like(parameter)
                put_entries(parameter.grad, block.rows, block.columns, block.values.grad)
        super().step()


def alone(_: Group, job: Job) -> Outcome:
    """The training on one process."""
    return _outcome(job, ALONE, 0)


def shared(group: Group, job: Job) -> Outcome:
    """The same on all."""
    return replace(_outcome(job, group, group.rank), bytes_sent=group.bytes_sent)


def state_of(job: Job) -> State:
    """Where the training starts."""
    settings = CASES[job.case]
    if settings["kind"] == "grn_vae" and job.dtype == torch.float64:
        settings = settings | {"table_tolerance": 0}  # a table's error, at most 1e-6, depends on the worker's cells
    config = models.CONFIGS[settings["kind"]].model_validate(settings)
    model = models.build(config, _facts(job.store), seed=1).model.to(job.dtype)
    optimizer = OptimizerConfig(**OPTIMIZERS[settings["kind"]])
    optimizers = Optimizers(optimizer, model.parameter_groups())
    if job.sgd:
        rate = SGD_RATES[settings["kind"]]
        optimizers.config = OptimizerConfig(optimizer="rmsprop", learning_rate=rate, schedule=optimizer.schedule)
        optimizers.optimizers = {name: SGD(group, lr=rate) for name, group in optimizers.groups.items()}
    return State(model, optimizers)


def batches_of(job: Job, rank: int = 0, world: int = 1) -> Callable[[int], Batch]:
    """The batches of one worker."""
    return lambda step: cast(_batch(job.store, job.streams, rank, world, step), job.dtype)


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch in another precision."""
    return replace(batch, expression=batch.expression.to(dtype))


@dataclass(frozen=True)
class Step:
    """Of one step: loss terms, every gradient (of blocks, of parameters), and what adding them up has sent."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]
    bytes_sent: int


def step_of(group: Group | Alone, job: Job, batch: Batch) -> Step:
    """A worker's first step, of its part of a batch; after it gradients are sums over the workers."""
    rank = group.rank if isinstance(group, Group) else 0
    model = state_of(job).model.train()
    own = part_of(batch, rank, group.count)
    terms = model(own, group)
    sum(terms.values()).backward()
    before = group.bytes_sent if isinstance(group, Group) else 0
    values = added_up(torch.stack(list(terms.values())).detach(), model, own.genes, group)
    sent = group.bytes_sent - before if isinstance(group, Group) else 0
    blocks = {name: taken_block(parameter) for name, parameter in model.named_parameters()}
    found = {
        name: parameter.grad if blocks[name] is None else blocks[name].values.grad
        for name, parameter in model.named_parameters()
    }
    gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
    return Step(dict(zip(terms, values.tolist(), strict=True)), gradients, sent)


def part_of(batch: Batch, rank: int, world: int) -> Batch:
    """The cells of a worker's logical streams."""
    streams = streams_of(rank, world, len(batch.shares))
    bounds = np.cumsum([0, *(count for _, count in batch.shares)])
    rows = torch.cat([torch.arange(0), *(torch.arange(*bounds[stream : stream + 2]) for stream in streams)])
    cells = {name: getattr(batch, name)[rows] for name in ("expression", "perturbed", "labels", "stored_nonzero")}
    return replace(batch, **cells, shares=tuple(batch.shares[stream] for stream in streams))


def poisoned(group: Group, job: Job) -> None:
    """A training in which one worker meets a value that is not finite."""
    batch_at = batches_of(job, group.rank, group.count)

    def with_infinity(step: int) -> Batch:
        batch = batch_at(step)
        return replace(batch, expression=batch.expression / 0) if step == 2 and group.rank == 1 else batch

    train(state_of(job), with_infinity, job.steps, lambda *news: None, workers=group)


def validated(workers: Group | Alone, job: Job, n_batches: int) -> float:
    """The held-out loss of a new model over so many batches, dealt to the workers."""
    rank = workers.rank if isinstance(workers, Group) else 0
    model = state_of(job).model
    batches = map(batches_of(job), range(rank, n_batches, workers.count))
    return held_out_loss(model, batches, models.criterion(model.config), workers=workers)


def refused(group: Group, case: str) -> None:
    """A step of a plain form."""
    settings = CASES[case] | {"form": "plain"}
    if settings["kind"] == "grn_vae":
        GRNVAE(GRNVAEConfig.model_validate(settings), 5)(batch_of(4, [0, 1, 2]), group)
    CaTran(CaTranConfig.model_validate(settings), 5)(batch_of(4, [0, 1, 2]), group)


def summed(group: Group) -> list[Tensor]:
    """Totals of two shapes, and what was given."""
    given = torch.full((2, 3), group.rank + 1.0)
    return [*group.total(given, torch.tensor(10.0 * (group.rank + 1))), given]


def added(group: Group) -> list[Any]:
    """Bytes sent, and tensors that became sums: small, not contiguous, large."""
    mine = group.rank + 1.0
    tensors = [torch.full((4,), mine), torch.full((2, 3), mine).T, torch.full((distributed.LARGE,), mine)]
    group.add_up(*tensors)
    return [group.bytes_sent, *tensors]


def told(group: Group, content: bytes) -> bytes:
    """What worker 0 has said."""
    return group.broadcast(content if group.rank == 0 else None)


def _outcome(job: Job, workers: Workers, rank: int) -> Outcome:
    state, losses, cells, genes = state_of(job), [], {}, []
    batch_at = batches_of(job, rank, workers.count)

    def after_step(state: State, batch: Batch, found: dict[str, float]) -> None:
        losses.append(found)
        genes.append(_digest(batch.genes))
        first = 0
        for stream, count in batch.shares:
            rows = slice(first, first + count)
            cells[state.step, stream] = _digest(batch.expression[rows], batch.perturbed[rows], batch.labels[rows])
            first += count

    train(state, batch_at, job.steps, after_step, workers=workers)
    model = state.model
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    predictions = _predictions(model, batches_of(job)(0))
    adjacency = model.eval().adjacency(torch.arange(model.n_regulators))
    return Outcome(cells, genes, losses, predictions, adjacency, parameters, bytes_sent=0)


@torch.no_grad()
def _predictions(model: AnyModel, batch: Batch) -> Tensor:
    """As in training: running statistics would lag behind parameters that move by rounding alone, as under Lion."""
    if isinstance(model, CaTran):
        return model.predict(batch.expression, batch.genes, model.attention(batch.genes))
    if isinstance(model, GRNVAE):
        return model._restored(model._seen(batch), batch).x
    inputs = model._inputs_of(batch.genes)
    return model.standardised(batch, inputs)[0] @ model.weights(batch.genes, inputs).T


def _digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


@cache
def _facts(store: Path) -> Facts:
    return Facts(whole(open_store(store)), ExpressionConfig())


@cache
def _batch(store: Path, streams: int, rank: int, world: int, step: int) -> Batch:
    return _loader(store, streams, rank, world).batch_at(step)


@cache
def _loader(store: Path, streams: int, rank: int, world: int) -> Loader:
    view = _facts(store).view
    plan = ShuffledPlan(
        n_cells=view.n_cells, n_genes=len(view.panel), cells_per_step=60, genes_per_step=25, seed=3, streams=streams
    )
    return Loader(view, plan, ExpressionConfig(), rank, world, ahead=False)
