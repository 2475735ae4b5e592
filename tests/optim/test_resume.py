"""What the optimisers of blocks keep goes through a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from grndist.data.stream.batch import Batch
from grndist.optim import BlockParameter, OptimizerConfig, Optimizers
from grndist.training import checkpoint
from grndist.training.checkpoint import Description
from grndist.training.loop import State, train
from grndist.workers import ALONE, Workers
from tests.models.batches import batch_of

N_GENES = 6
SUBSETS = [[0, 1, 2, 3, 4, 5], [0, 2, 3], [1, 3, 5]]  # a whole step, then blocks
CONFIGS = [
    OptimizerConfig(optimizer=name, learning_rate=0.01, schedule=schedule)
    for name in ("rmsprop", "adam", "adamw", "lion")
    for schedule in ("joint", "alternating")
]


class Linear(nn.Module):
    """Expression explained by other genes of the step."""

    def __init__(self):
        super().__init__()
        self.weight = BlockParameter(torch.full((N_GENES, N_GENES), 0.1))
        self.level = nn.Parameter(torch.zeros(N_GENES))

    def forward(self, batch: Batch, workers: Workers = ALONE) -> dict[str, Tensor]:
        genes = None if len(batch.genes) == N_GENES else batch.genes
        found = batch.expression @ self.weight.take(genes, genes) + self.level[batch.genes]
        return {"error": (batch.expression - found).square().mean()}


def fresh(config: OptimizerConfig) -> State:
    model = Linear()
    return State(model, Optimizers(config, {"networks": [model.level], "adjacency": [model.weight]}))


def batch_at(step: int) -> Batch:
    return batch_of(8, SUBSETS[step % 3], epoch=step // 2, step=step % 2)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.optimizer}-{config.schedule}")
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, config: OptimizerConfig, stop: int):
    whole, half, resumed = fresh(config), fresh(config), fresh(config)
    train(whole, batch_at, 12, lambda *news: None)
    train(half, batch_at, stop, lambda *news: None)
    path = checkpoint.save(tmp_path, half, Description(stop, {}, [f"g{i}" for i in range(N_GENES)], "digest"))
    checkpoint.restore(path, resumed)
    train(resumed, batch_at, 12, lambda *news: None)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
        assert not torch.equal(value, fresh(config).model.state_dict()[name]), name
