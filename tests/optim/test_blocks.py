import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from grndist.optim import BlockParameter, OptimizerConfig, Optimizers
from grndist.optim.blocks import entries, put_entries

ROWS, COLUMNS = torch.tensor([3, 0]), torch.tensor([1, 4, 2])
INDICES = [(ROWS, COLUMNS), (ROWS, None), (None, COLUMNS)]


def matrix() -> BlockParameter:
    return BlockParameter(torch.arange(20.0).reshape(4, 5))


@pytest.mark.parametrize(("rows", "columns"), [*INDICES, (None, None)])
def test_what_is_taken_is_rows_of_columns_and_goes_back(rows: Tensor | None, columns: Tensor | None):
    whole = matrix().detach()
    expected = whole if rows is None else whole[rows]
    expected = expected if columns is None else expected[:, columns]
    found = entries(whole, rows, columns)
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    assert found.data_ptr() != whole.data_ptr()
    changed = whole.clone()
    put_entries(changed, rows, columns, -found)
    assert torch.equal(entries(changed, rows, columns), -expected)
    assert (changed != whole).sum() == (expected != 0).sum()


@pytest.mark.parametrize(("rows", "columns"), INDICES)
def test_only_the_block_has_a_gradient(rows: Tensor | None, columns: Tensor | None):
    parameter = matrix()
    taken = parameter.take(rows, columns)
    taken.square().sum().backward()
    assert parameter.grad is None
    assert taken.is_leaf
    assert parameter.block is not None
    assert parameter.block.values is taken
    assert torch.equal(taken.grad, 2 * taken.detach())


def test_the_whole_is_the_parameter_itself():
    parameter = matrix()
    parameter.take(ROWS, None)
    assert parameter.take(None, None) is parameter
    assert parameter.block is None


def test_a_frozen_parameters_block_is_frozen_and_a_look_is_not_remembered():
    parameter = matrix()
    with torch.no_grad():
        assert not parameter.take(ROWS, COLUMNS).requires_grad
    assert parameter.block is None
    parameter.requires_grad_(False)
    assert not parameter.take(ROWS, COLUMNS).requires_grad


def test_a_step_forgets_the_block_of_the_step_before():
    parameter = matrix()
    optimizers = Optimizers(OptimizerConfig(optimizer="adam", learning_rate=0.1), {"adjacency": [parameter]})
    parameter.take(ROWS, COLUMNS).sum().backward()
    before = parameter.detach().clone()
    optimizers.prepare(0, 0)
    optimizers.step(0)
    assert parameter.block is None
    assert torch.equal(parameter, before)


def test_it_is_a_parameter_of_modules():
    module = nn.Module()
    module.weight = matrix()
    module.weight.take(ROWS, COLUMNS)
    copied = copy.deepcopy(module).to(torch.float64)
    assert isinstance(copied.weight, BlockParameter)
    assert copied.weight.dtype == torch.float64
    assert copied.weight.block is None
    assert dict(copied.named_parameters()).keys() == {"weight"}
    copied.load_state_dict({"weight": torch.ones(4, 5)})
    assert isinstance(copied.weight, BlockParameter)
    assert (copied.weight == 1).all()
    assert torch.equal(module.weight, matrix())


def test_it_is_still_one_after_a_pickle():
    module = nn.Module()
    module.weight = matrix().requires_grad_(False)
    module.weight.take(ROWS, COLUMNS)
    read = pickle.loads(pickle.dumps(module)).weight
    assert isinstance(read, BlockParameter)
    assert read.block is None
    assert not read.requires_grad
    assert torch.equal(read, matrix())
