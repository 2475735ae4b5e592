"""Tables of several networks against the networks themselves, one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from grndist.models.grn_vae.stacked_tables import Layer, outputs, tabulated
from grndist.models.grn_vae.tables import evaluate
from grndist.models.layers import linears
from tests.models.grn_vae.test_tables import network

PLACES = (60, 50)  # of each replicate


def networks(number: int) -> list[torch.nn.Sequential]:
    return [network(seed=seed) for seed in range(number)]


def stacked(models: list[torch.nn.Sequential]) -> list[Layer]:
    """Their layers, [replicates, ...], as leaves."""
    layers = zip(*(linears(model) for model in models), strict=True)
    return [
        tuple(
            torch.stack([getattr(layer, name).detach() for layer in same]).requires_grad_()
            for name in ("weight", "bias")
        )
        for same in layers
    ]  # type: ignore[misc]


def inputs(spreads: list[float]) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([spread * rng.uniform(-1, 1, PLACES) for spread in spreads]))


def close(found: Tensor, wanted: Tensor, limit: float) -> None:
    assert (found - wanted).abs().max() <= limit * wanted.abs().max()


@pytest.mark.parametrize(
    ("spreads", "good"),
    [([3.0, 4.0, 2.0], [True] * 3), ([3.0, 1e4, 2.0], [True, False, True]), ([1e4, 1e5], None), ([3.0], [True])],
    ids=["all by table", "one reaches too far", "none has a table", "one alone"],
)
def test_outputs_and_gradients_are_those_of_each_network(spreads: list[float], good: list[bool] | None):
    models, x = networks(len(spreads)), inputs(spreads).requires_grad_()
    layers = stacked(models)
    tables = tabulated(layers, x, 1e-6)
    assert (None if tables is None else tables.is_good.tolist()) == good
    found = outputs(layers, x, tables)
    upstream = torch.from_numpy(np.random.default_rng(1).normal(size=found.shape))
    found.backward(upstream)
    assert x.grad is not None
    for at, model in enumerate(models):
        own = x[at].detach().requires_grad_()
        wanted = evaluate(model, own).movedim(-1, 0)
        wanted.backward(upstream[at])
        assert own.grad is not None
        close(found[at].detach(), wanted.detach(), 1e-6)
        close(x.grad[at], own.grad, 1e-5)
        for layer, (weight, bias) in zip(linears(model), layers, strict=True):
            for ours, theirs in ((weight.grad, layer.weight.grad), (bias.grad, layer.bias.grad)):
                assert ours is not None
                assert theirs is not None
                close(ours[at], theirs, 1e-5)


def test_places_that_are_not_finite_are_of_no_consequence_to_the_others():
    layers, x = stacked(networks(3)), inputs([3.0, 3.0, 3.0])
    x[1, 4, 7] = torch.nan
    tables = tabulated(layers, x, 1e-6)
    assert tables is not None
    assert tables.is_good.tolist() == [True, False, True]
    found = outputs(layers, x, tables)
    assert found[[0, 2]].isfinite().all()
    assert found[1].isnan().any()


def test_there_are_no_tables_without_a_tolerance_or_with_few_places():
    layers, x = stacked(networks(2)), inputs([3.0, 3.0])
    assert tabulated(layers, x, 0.0) is None
    assert tabulated(layers, x[:, :2, :5], 1e-6) is None


def test_knots_are_as_dense_as_the_worst_network_needs():
    calm, wild = network(scale=0.3), network(scale=1.3)
    x = inputs([3.0, 3.0])
    alone = [tabulated(stacked([model]), x[:1], 1e-6) for model in (calm, wild)]
    both = tabulated(stacked([calm, wild]), x, 1e-6)
    assert both is not None
    steps = [tables.step for tables in alone if tables is not None]
    assert len(steps) == 2
    assert both.step == min(steps) < max(steps)
    assert both.cover(x)
    assert not both.cover(x * 2)
