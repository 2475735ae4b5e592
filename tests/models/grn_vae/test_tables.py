import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.models.grn_vae import tables
from grndist.models.grn_vae.tables import Table, evaluate, tabulated, with_slopes
from grndist.models.layers import init_xavier, linears, scalar_network
from grndist.seeds import stream
from tests.models.threads import in_threads


def network(
    outputs: int = 2, inputs: int = 1, scale: float = 1.0, seed: int = 0, width: int = 32
) -> torch.nn.Sequential:
    found = scalar_network(width, outputs, inputs).double()
    rng = stream(seed, "init")
    init_xavier(linears(found), rng)
    with torch.no_grad():
        for linear in linears(found):
            linear.weight.mul_(scale)
            linear.bias.copy_(torch.from_numpy(rng.normal(size=linear.bias.shape)))
    return found


def places(low: float, high: float, n: int = 20_000, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, (4, n // 4)))


def worst(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


def slope(model: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    return with_slopes(model, x)[1]


def whole_slopes(model: torch.nn.Sequential, low: float, high: float) -> torch.Tensor:
    return slope(model, torch.linspace(low, high, 5000, dtype=torch.float64)).abs().max()


@settings(max_examples=30)
@given(
    low=st.floats(-20, 10), length=st.floats(0.01, 25), scale=st.floats(0.3, 3), inputs=st.sampled_from([1, 2]),
    tolerance=st.sampled_from([1e-4, 1e-6, 1e-9]), seed=st.integers(0, 100),
)  # fmt: skip
def test_a_table_is_within_the_bound_it_reports(low, length, scale, inputs, tolerance, seed):
    model, x = network(2, inputs, scale, seed), places(low, low + length).requires_grad_()
    table = tabulated(model, x, tolerance)
    if table is None:
        return
    assert table.bound == max(table.value_bound, table.slope_bound) <= tolerance
    largest = table.values.abs().max()
    exact = evaluate(model, x).movedim(-1, 0)
    assert (table.at(x) - exact).abs().max() <= (table.value_bound + 1e-14) * largest
    steepest = whole_slopes(model, np.floor(low), np.ceil(low + length))
    for output in range(2):
        (found,) = torch.autograd.grad(table.at(x)[output].sum(), x, retain_graph=True)
        (wanted,) = torch.autograd.grad(evaluate(model, x)[..., output].sum(), x, retain_graph=True)
        assert (found - wanted).abs().max() <= (table.slope_bound + 1e-12) * steepest * 1.001


def test_the_bound_is_that_of_the_halved_table_at_its_midpoints_and_ends():
    model = network(1)
    model.requires_grad_(False)
    table = tabulated(model, places(0, 4), 1e-6)
    n = (len(table.values) - 5) // 2
    knots = table.low + 2 * table.step * torch.arange(-2, n + 3, dtype=torch.float64)
    coefficients = evaluate(model, knots).unfold(0, 6, 1) @ tables.LAGRANGE.T
    knots = knots[2:-2]
    at_middle = (coefficients @ 0.5 ** torch.arange(6.0, dtype=torch.float64))[:, 0]
    exact = evaluate(model, knots[:-1] + table.step)[:, 0]
    inside = table.values.abs().max()
    assert float((at_middle - exact).abs().max() / inside) == pytest.approx(table.value_bound, rel=1e-3)
    found = coefficients[:, 0, 1] / (2 * table.step) - slope(model, knots[:-1])[:, 0]
    assert float(found.abs().max()) <= table.slope_bound * float(slope(model, knots).abs().max()) * 1.001


def test_slopes_are_those_of_autograd():
    for inputs in (1, 2):
        model, x = network(2, inputs), places(-3, 5, 40).flatten().requires_grad_()
        found = with_slopes(model, x.detach())
        exact = evaluate(model, x)
        assert torch.allclose(found[0], exact, atol=1e-14)
        for output in range(2):
            (wanted,) = torch.autograd.grad(exact[:, output].sum(), x, retain_graph=True)
            assert torch.allclose(found[1][:, output], wanted, atol=1e-13)


def test_gradients_are_those_of_the_network():
    model, x = network(), places(-3, 5).requires_grad_()
    upstream = torch.from_numpy(np.random.default_rng(1).normal(size=(2, *x.shape)))
    table = tabulated(model, x, 1e-9)
    of_table = torch.autograd.grad((table.at(x) * upstream).sum(), [x, *model.parameters()])
    exact = evaluate(model, x).movedim(-1, 0)
    of_network = torch.autograd.grad((exact * upstream).sum(), [x, *model.parameters()])
    assert all(worst(found, wanted) < 1e-8 for found, wanted in zip(of_table, of_network, strict=True))


def test_the_gradient_is_exactly_that_of_the_interpolant():
    """Against finite differences of the table itself, in the knots' values and in the places."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(12, 2))).requires_grad_()
    x = torch.from_numpy(rng.uniform(1, 2.7, (3, 5))).requires_grad_()
    assert torch.autograd.gradcheck(lambda values, x: Table(1.0, 0.25, values, 0.0, 0.0).at(x), (values, x))


def test_it_passes_through_the_knots_and_reaches_both_ends():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 1)))
    x = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    assert torch.allclose(Table(0.0, 0.5, values, 0.0, 0.0).at(x)[0], values[2:-2, 0], atol=1e-13)


def test_a_smaller_tolerance_takes_more_knots_until_the_network_itself_is_cheaper():
    model, x = network(scale=2.0), places(-10, 10)
    knots = [len(tabulated(model, x, tolerance).values) for tolerance in (1e-3, 1e-5, 1e-7)]
    assert knots[0] < knots[1] < knots[2]
    assert tabulated(model, x, 1e-15) is None
    assert tabulated(model, x[:, :10], 1e-3) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_places_without_a_range_have_no_table(bad: float):
    x = places(0, 1)
    x[0, 0] = bad
    assert tabulated(network(), x, 1e-6) is None
    assert tabulated(network(), x[:0], 1e-6) is None


def test_places_far_apart_have_no_table():
    x = places(0, 1)
    x[0, 0] = 1e9
    assert tabulated(network(), x, 1e-6) is None


def test_one_place_many_times_is_a_range_too():
    model, x = network(), torch.full((4, 2000), 3.0, dtype=torch.float64)
    assert worst(tabulated(model, x, 1e-6).at(x), evaluate(model, x).movedim(-1, 0)) < 1e-6


def test_in_single_precision_slopes_are_as_good_as_the_networks_own():
    model = network().float()
    x = places(-8, 8).float().requires_grad_()
    table = tabulated(model, x, 1e-6)
    assert table.values.dtype == torch.float64
    (found,) = torch.autograd.grad(table.at(x).sum(), x)
    exact = evaluate(model.double(), x.double()).sum()
    (wanted,) = torch.autograd.grad(exact, x)
    assert worst(found, wanted) < 1e-6


def test_it_gives_the_same_bits_with_any_number_of_threads():
    model, x = network(), places(-3, 5, 200_000).requires_grad_()

    def of_parameters() -> list[torch.Tensor]:
        return torch.autograd.grad(tabulated(model, x, 1e-6).at(x).square().sum(), [x, *model.parameters()])

    pairs = zip(in_threads(1, of_parameters), in_threads(3, of_parameters), strict=True)
    assert all(torch.equal(one, three) for one, three in pairs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees():
    model, x = network(), places(-3, 5).requires_grad_()
    found = [g.cpu() for g in of_both(model.cuda(), x.detach().cuda().requires_grad_())]
    assert all(worst(a, b) < 1e-9 for a, b in zip(found, of_both(model.cpu(), x), strict=True))


def of_both(model: torch.nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(tabulated(model, x, 1e-9).at(x).square().sum(), [x, *model.parameters()]))
