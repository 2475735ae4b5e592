import logging

import pytest
import torch
from torch import Tensor

from grndist.models import silu_head as heads
from grndist.models.silu_head import expression, silu_head
from tests.models.threads import in_threads

NAMES = ("y", "level", "slope", "weight", "bias")


def inputs(n_cells: int, n_genes: int, d: int, dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(n_cells, n_genes), (n_genes, d), (d,), (d,), ()]
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    values[0] *= scale
    return [value.to(dtype).requires_grad_() for value in values]


def with_gradients(function, arguments: list[Tensor]) -> list[Tensor]:
    arguments = [argument.detach().requires_grad_() for argument in arguments]
    out = function(*arguments)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)
    (out * weights).sum().backward()
    return [out.detach(), *(argument.grad for argument in arguments)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 2), (130, 20, 5), (5, 600, 3), (257, 513, 2)])
def test_the_kernel_is_the_definition_in_float64(shape: tuple[int, int, int]):
    arguments = inputs(*shape, torch.float64)
    ours, wanted = with_gradients(silu_head, arguments), with_gradients(expression, arguments)
    for value, reference in zip(ours, wanted, strict=True):
        assert torch.allclose(value, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_the_kernel_is_the_definition_in_float32(scale: float):
    arguments = inputs(130, 40, 5, torch.float32, scale)
    ours = with_gradients(silu_head, arguments)
    wanted = with_gradients(expression, [argument.double() for argument in arguments])
    for name, value, reference in zip(("out", *NAMES), ours, wanted, strict=True):
        assert (value - reference).abs().max() <= 2e-6 * reference.abs().max(), name


def test_one_activation_over_the_whole_range_of_float32():
    y = torch.cat([torch.linspace(-200, 200, 4001), torch.tensor([-3e38, -1e20, -0.0, 1e-40, 1e20, 3e38])])[None]
    one, zero = torch.ones(1), torch.zeros(1)
    field = torch.zeros(y.shape[1], 1)
    ours = silu_head(y, field, one, one, zero[0])
    wanted = torch.nn.functional.silu(y.double())
    assert torch.isfinite(ours).all()
    assert torch.allclose(ours.double(), wanted, rtol=5e-7, atol=1e-36)


def test_infinity_and_nan_are_not_hidden():
    y = torch.tensor([[float("inf"), float("nan"), 1.0]])
    out = silu_head(y, torch.zeros(3, 1), torch.ones(1), torch.ones(1), torch.tensor(0.0))[0]
    assert out[0] == float("inf")
    assert out[1].isnan()
    assert out[2].isfinite()


def test_the_number_of_threads_does_not_change_a_bit():
    arguments = inputs(700, 60, 5, torch.float32)
    one, three = (in_threads(threads, lambda: with_gradients(silu_head, arguments)) for threads in (1, 3))
    assert all(torch.equal(first, second) for first, second in zip(one, three, strict=True))


def test_tensors_that_are_not_contiguous():
    y, level, *others = inputs(20, 8, 5, torch.float64)
    transposed = [y.detach().T.contiguous().T, level.detach().T.contiguous().T, *others]
    assert torch.equal(silu_head(*transposed), silu_head(y, level, *others))


def test_the_tiled_form_is_the_definition(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "TILE", 100)  # two cells
    y, *others = (argument.detach() for argument in inputs(7, 10, 5, torch.float64))
    out, *wanted = with_gradients(expression, [y, *others])
    d_out = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    assert torch.allclose(heads.TILED.head(y, *others), out)
    for value, reference in zip(heads.TILED.gradient(d_out, y, *others[:3]), wanted[:4], strict=True):
        assert torch.allclose(value, reference)


def test_where_compiling_fails_the_other_form_takes_over_and_says_so_once(caplog: pytest.LogCaptureFixture):
    def not_compilable(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x

    function = heads._Compiled(not_compilable, lambda x: x + 1)
    with caplog.at_level(logging.WARNING):
        assert [function(torch.ones(1)).item() for _ in range(2)] == [2.0, 2.0]
    assert len(caplog.records) == 1
    assert "slower form" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_compiled_form_on_a_gpu_is_the_definition():
    arguments = [argument.detach().cuda() for argument in inputs(257, 120, 5, torch.float32)]
    ours = with_gradients(silu_head, arguments)
    wanted = with_gradients(expression, [argument.double() for argument in arguments])
    for name, value, reference in zip(("out", *NAMES), ours, wanted, strict=True):
        assert (value - reference).abs().max() <= 5e-6 * reference.abs().max(), name
    assert heads.COMPILED.head.works
