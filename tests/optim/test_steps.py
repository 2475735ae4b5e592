"""The optimisers of blocks, against PyTorch's own of whole matrices and of sparse gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lion_pytorch import Lion
from torch import Tensor, nn

from grndist.optim import BlockParameter, OptimizerConfig, Optimizers
from grndist.optim.blocks import entries, put_entries
from grndist.optim.matrices import Adam, RMSprop
from grndist.optim.passes import PART
from tests.models.threads import in_threads

Index = Tensor | None
BETAS = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.9, 0.999]))
KINDS = [RMSprop, lambda parameters, lr: Adam(parameters, lr, (0.9, 0.99))]
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def random_block(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Index, Index]:
    """Some rows or all, and some columns or all, in any order; never the whole."""
    while True:
        rows, columns = (
            torch.from_numpy(rng.permutation(n)[: rng.integers(1, n + 1)]) if rng.random() < 0.7 else None
            for n in shape
        )
        if rows is not None or columns is not None:
            return rows, columns


def pair(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[BlockParameter, nn.Parameter]:
    start = torch.from_numpy(rng.standard_normal(shape))
    return BlockParameter(start), nn.Parameter(start.clone())


def whole_steps(
    ours: Any, theirs: torch.optim.Optimizer, parameter: BlockParameter, other: nn.Parameter, rng: Any
) -> None:
    for _ in range(30):
        gradient = torch.from_numpy(rng.standard_normal(parameter.shape)) * 10 ** rng.uniform(-6, 3)
        parameter.grad, other.grad = gradient.T.contiguous().T, gradient.clone()  # ours is not contiguous
        ours.step()
        theirs.step()
    assert torch.allclose(parameter, other, rtol=1e-12, atol=1e-12)


@given(shape=SIZES, rate=st.floats(1e-5, 1.0), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_whole_steps_of_rmsprop_are_pytorchs(shape: tuple[int, int], rate: float, seed: int):
    rng = np.random.default_rng(seed)
    parameter, other = pair(rng, shape)
    whole_steps(RMSprop([parameter], lr=rate), torch.optim.RMSprop([other], lr=rate), parameter, other, rng)


@given(shape=SIZES, rate=st.floats(1e-5, 1.0), betas=BETAS, decay=st.sampled_from([None, 0.0, 0.1]))
@settings(max_examples=30)
def test_whole_steps_of_adam_are_pytorchs(
    shape: tuple[int, int], rate: float, betas: tuple[float, float], decay: float | None
):
    rng = np.random.default_rng(0)
    parameter, other = pair(rng, shape)
    if decay is None:
        ours, theirs = Adam([parameter], rate, betas), torch.optim.Adam([other], lr=rate, betas=betas)
    else:
        ours = Adam([parameter], rate, betas, decay)
        theirs = torch.optim.AdamW([other], lr=rate, betas=betas, weight_decay=decay)
    whole_steps(ours, theirs, parameter, other, rng)


def step_of_block(optimizer: Any, parameter: BlockParameter, rows: Index, columns: Index, gradient: Tensor) -> None:
    parameter.grad = parameter.block = None
    parameter.take(rows, columns).backward(gradient)
    optimizer.step()


def block_steps(optimizer: Any, parameter: BlockParameter, rng: np.random.Generator, n: int = 20) -> list[Any]:
    """What was stepped: rows, columns, and the gradient spread over the whole."""
    done = []
    for _ in range(n):
        rows, columns = random_block(rng, parameter.shape)
        spread = torch.from_numpy(rng.standard_normal(parameter.shape)).to(parameter)
        step_of_block(optimizer, parameter, rows, columns, entries(spread, rows, columns))
        outside = spread.clone()
        put_entries(outside, rows, columns, torch.zeros_like(entries(spread, rows, columns)))
        done.append((outside == 0, spread - outside))
    return done


@given(shape=SIZES, rate=st.floats(1e-4, 0.1), betas=BETAS, seed=st.integers(0, 99))
@settings(max_examples=30)
def test_block_steps_of_adam_are_those_of_sparse_adam(
    shape: tuple[int, int], rate: float, betas: tuple[float, float], seed: int
):
    rng = np.random.default_rng(seed)
    parameter, other = pair(rng, shape)
    ours, theirs = Adam([parameter], rate, betas), torch.optim.SparseAdam([other], lr=rate, betas=betas, eps=1e-30)
    ours.param_groups[0]["eps"] = 1e-30  # the two differ in whether the bias correction includes it
    for inside, spread in block_steps(ours, parameter, rng):
        other.grad = torch.sparse_coo_tensor(inside.nonzero().T, spread[inside], shape, check_invariants=True)
        theirs.step()
    assert torch.allclose(parameter, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_steps_of_rmsprop_are_rmsprops_of_each_entrys_own_steps(dtype: torch.dtype):
    rng = np.random.default_rng(3)
    parameter = BlockParameter(torch.from_numpy(rng.standard_normal((5, 7))).to(dtype))
    singles = [nn.Parameter(value.clone()) for value in parameter.detach().flatten()]
    alone = [torch.optim.RMSprop([entry], lr=0.1) for entry in singles]
    for inside, spread in block_steps(RMSprop([parameter], lr=0.1), parameter, rng):
        for at in inside.flatten().nonzero()[:, 0].tolist():
            singles[at].grad = spread.flatten()[at].clone()
            alone[at].step()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(parameter.flatten(), torch.stack(singles), rtol=tolerance, atol=tolerance)


def test_decay_is_of_the_block_alone():
    parameter = BlockParameter(torch.ones(2, 3, dtype=torch.float64))
    optimizer = Adam([parameter], 0.1, (0.9, 0.999), 0.5)
    step_of_block(optimizer, parameter, torch.tensor([1]), torch.tensor([0, 2]), torch.zeros(1, 2, dtype=torch.float64))
    assert torch.allclose(parameter.detach(), torch.tensor([[1, 1, 1], [0.95, 1, 0.95]], dtype=torch.float64))


def test_lion_sees_a_gradient_of_nothing_outside_the_block():
    rng = np.random.default_rng(1)
    parameter, other = pair(rng, (4, 6))
    config = OptimizerConfig(optimizer="lion", learning_rate=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    optimizer = Optimizers(config, {"adjacency": [parameter]}).optimizers["adjacency"]
    lion = Lion([other], lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    for _, spread in block_steps(optimizer, parameter, rng, 5):
        other.grad = spread
        lion.step()
    assert torch.equal(parameter, other)


@pytest.mark.parametrize("kind", KINDS, ids=["rmsprop", "adam"])
def test_plain_pytorch_and_the_kernels_agree(kind: Any):
    """A matrix that is not contiguous is no matter for the kernels."""
    start = torch.from_numpy(np.random.default_rng(2).standard_normal((6, 8)))
    compiled, plain = BlockParameter(start.clone()), BlockParameter(start.T.contiguous().T)
    for parameter in (compiled, plain):
        optimizer, rng = kind([parameter], 0.05), np.random.default_rng(4)
        for _ in range(3):
            parameter.grad = torch.from_numpy(rng.standard_normal((6, 8)))
            optimizer.step()
        block_steps(optimizer, parameter, rng)
    assert not plain.is_contiguous()
    assert torch.allclose(compiled, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=["rmsprop", "adam"])
def test_bits_do_not_depend_on_the_number_of_threads(kind: Any):
    def stepped() -> Tensor:
        rng = torch.Generator().manual_seed(0)
        parameter = BlockParameter(torch.rand(3, PART, generator=rng))
        optimizer = kind([parameter], 0.1)
        parameter.grad = torch.rand(parameter.shape, generator=rng)
        optimizer.step()
        step_of_block(optimizer, parameter, torch.tensor([2, 0]), None, torch.rand(2, PART, generator=rng))
        return parameter.detach()

    assert torch.equal(in_threads(1, stepped), in_threads(3, stepped))


@pytest.mark.parametrize("kind", KINDS, ids=["rmsprop", "adam"])
def test_autograd_knows_that_the_parameter_has_changed(kind: Any):
    parameter = BlockParameter(torch.ones(2, 2))
    (parameter * parameter).sum().backward()
    kept = (parameter * parameter).sum()
    kind([parameter], 0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw", "lion"])
def test_a_gpu_takes_the_same_steps(name: str):
    config = OptimizerConfig(optimizer=name, learning_rate=0.05, betas=(0.9, 0.99))  # type: ignore[arg-type]
    start = torch.from_numpy(np.random.default_rng(5).standard_normal((30, 40)))
    found = []
    for device in ("cpu", "cuda"):
        parameter, rng = BlockParameter(start.to(device)), np.random.default_rng(6)
        optimizer = Optimizers(config, {"adjacency": [parameter]}).optimizers["adjacency"]
        parameter.grad = torch.from_numpy(rng.standard_normal((30, 40))).to(device)
        optimizer.step()
        for _ in range(5):
            rows, columns = (torch.from_numpy(rng.permutation(n)[:10]).to(device) for n in (30, 40))
            step_of_block(
                optimizer, parameter, rows, columns, torch.from_numpy(rng.standard_normal((10, 10))).to(device)
            )
        found.append(parameter.detach().cpu())
    assert torch.allclose(*found, rtol=1e-10, atol=1e-12)
