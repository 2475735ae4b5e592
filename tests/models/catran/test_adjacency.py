"""The attention of every target is normalised over all regulators, once for all blocks of rows."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from grndist.models.catran import CaTran, CaTranConfig

N_GENES, D = 30, 4


@pytest.fixture
def model() -> CaTran:
    return CaTran(CaTranConfig(embedding=D, embedding_std=0.5, linear_std=0.5), N_GENES).eval()


def operations(model: CaTran, rows: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model.adjacency(rows)
    return counter.get_total_flops()


def test_a_later_block_costs_only_its_own_products(model: CaTran):
    rows = torch.arange(5)
    first, second = operations(model, rows), operations(model, rows + 5)
    assert second == 2 * N_GENES * D * (D + len(rows))  # the projection and the block
    assert first - second == 2 * N_GENES * N_GENES * D
    model.train()
    assert operations(model, rows) == first


@pytest.mark.parametrize("name", ["embedding", "projection.weight", "projection.bias"])
def test_weights_that_change_between_blocks_are_noticed(model: CaTran, name: str):
    rows = torch.arange(N_GENES)
    model.adjacency(rows)
    changed = {key: value + 0.3 if key == name else value for key, value in model.state_dict().items()}
    model.load_state_dict(changed)
    fresh = CaTran(model.config, N_GENES)
    fresh.load_state_dict(changed)
    assert torch.equal(model.adjacency(rows), fresh.adjacency(rows))
