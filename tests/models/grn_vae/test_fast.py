"""The fast form against the plain one, in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.models.grn_vae import GRNVAE
from grndist.models.grn_vae.equations import structural
from grndist.models.grn_vae.solve import lu
from grndist.models.grn_vae.tables import tabulated
from grndist.optim import OptimizerConfig, Optimizers
from tests.models.batches import batch_of
from tests.models.grn_vae.test_model import DAZZLE, DEEPSEM, model_of

FAMILY = {
    "grn_vae": {"sparse_delay": 0},
    "dazzle": DAZZLE | {"sparse_delay": 0},
    "deepsem": DEEPSEM,
    "closed": {"prior": "networks", "sparse_delay": 0, "clip": 2.0, "augmentation_entries": "below_mean"},
    "clean": {"reconstruction_target": "clean", "augmentation": 0.4, "loss_entries": "all", "sparse_delay": 0},
}
# The table's error, as a share of the largest value or slope, passes through products with (I - A)^-1, whose condition
# number is below 1,000, and through the losses.
MAGNIFIED = 1e3


def gradients(model: GRNVAE, batch) -> dict[str, torch.Tensor]:
    terms = model(batch)
    torch.stack(list(terms.values())).sum().backward()
    found = {name: value.detach() for name, value in terms.items()}
    block = model.weight.block
    found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found |= {} if block is None else {"weight": block.values.grad}
    return {name: value for name, value in found.items() if value.numel()}  # a subset may have no regulator


def conditioned(model: GRNVAE, spread: float, seed: int) -> None:
    """Give A entries of all sizes and both signs, and I - A a condition number below 1,000."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        noise = rng.normal(size=model.weight.shape) * spread / np.sqrt(model.weight.shape[1])
        model.weight.copy_(torch.from_numpy(noise) * (model.weight != 0))
        whole = model.adjacency(torch.arange(model.n_regulators))
        while torch.linalg.cond(torch.eye(len(whole)).to(whole) - whole) > 1e3:
            model.weight.mul_(0.8)
            whole = model.adjacency(torch.arange(model.n_regulators))


def compare(family: str, genes: int, cells: int, tolerance: float, data) -> None:
    regulators = data.draw(st.none() | st.lists(st.integers(0, genes - 1), min_size=1, max_size=genes, unique=True))
    subset = sorted(data.draw(st.lists(st.integers(0, genes - 1), min_size=1, max_size=genes, unique=True)))
    seed, spread, scale = data.draw(st.integers(0, 99)), data.draw(st.floats(0, 1)), data.draw(st.floats(0.3, 5))
    found = []
    for form in ("plain", "fast"):
        model = model_of(
            genes, seed, regulators and sorted(regulators), form=form, table_tolerance=tolerance, **FAMILY[family]
        ).double()
        conditioned(model, spread, seed)
        model.standardise_with(np.linspace(0.1, 0.6, genes), np.linspace(0.5, 2, genes) / scale)
        batch = batch_of(cells, subset, dtype=torch.float64, seed=seed)
        found.append(gradients(model, batch))
    plain, fast = found
    assert plain.keys() == fast.keys()
    allowed = 1e-8 if tolerance == 0 else MAGNIFIED * tolerance
    largest = max(float(value.abs().max()) for value in plain.values())
    for name in plain:
        size = max(float(plain[name].abs().max()), 1e-3 * largest)
        assert float((plain[name] - fast[name]).abs().max()) <= allowed * size, name


@pytest.mark.parametrize("family", FAMILY)
@settings(max_examples=8)
@given(genes=st.integers(2, 30), cells=st.integers(1, 20), data=st.data())
def test_without_tables_losses_and_gradients_agree(family: str, genes: int, cells: int, data):
    compare(family, genes, cells, 0.0, data)


@pytest.mark.parametrize("family", FAMILY)
@settings(max_examples=4)
@given(genes=st.integers(10, 40), tolerance=st.sampled_from([1e-6, 1e-9]), data=st.data())
def test_with_tables_they_agree_as_well_as_the_tables_say(family: str, genes: int, tolerance: float, data):
    compare(family, genes, 600, tolerance, data)


def test_tables_are_used_where_they_pay():
    model, batch = model_of(40).double(), batch_of(600, list(range(40)), dtype=torch.float64)
    assert tabulated(model.encoder, batch.expression, 1e-6) is not None
    assert tabulated(model.encoder, batch.expression[:3], 1e-6) is None


@pytest.mark.parametrize(
    ("optimizer", "schedule", "solver", "genes", "cells"),
    [
        ("adam", "joint", "lu", 30, 300), ("rmsprop", "alternating", "lu", 30, 300),
        ("rmsprop", "joint", "iterative", 80, 1),  # a table does not pay, iterations do
    ],
)  # fmt: skip
def test_training_goes_the_same_way(optimizer: str, schedule: str, solver: str, genes: int, cells: int):
    """Nothing that is kept from step to step is used after it has become wrong."""
    trained = []
    for form in ("plain", "fast"):
        model = model_of(genes, form=form, sparse_delay=2, table_tolerance=1e-10, solver=solver, width=16).double()
        config = OptimizerConfig(
            optimizer=optimizer, learning_rate=1e-4, adjacency_learning_rate=2e-4, schedule=schedule, betas=(0.9, 0.9)
        )
        optimizers = Optimizers(config, model.parameter_groups())
        for step in range(24):
            batch = batch_of(cells, list(range(genes)), epoch=step // 3, step=step, dtype=torch.float64)
            optimizers.prepare(batch.epoch, step)
            torch.stack(list(model(batch).values())).sum().backward()
            optimizers.step(batch.epoch)
        trained.append(model)
    for (name, plain), fast in zip(trained[0].named_parameters(), trained[1].parameters(), strict=True):
        assert torch.allclose(plain, fast, rtol=1e-5, atol=1e-7), name


def test_the_factor_of_a_frozen_adjacency_is_kept_and_a_changed_one_is_not():
    model, batch = model_of(20), batch_of(30, list(range(20)))
    model.weight.requires_grad_(False)
    model(batch)
    kept = model._kept[1]
    model(batch)
    assert model._kept[1] is kept
    with torch.no_grad():
        model.weight[0, 1] += 0.5
        changed, wanted = model(batch), plain_of(model)(batch)
    assert model._kept[1] is not kept
    assert float(changed["reconstruction"]) == pytest.approx(float(wanted["reconstruction"]), rel=1e-5)


def test_the_size_of_many_small_entries_is_not_lost_in_rounding():
    rng = np.random.default_rng(0)
    a, regulators = torch.from_numpy(rng.random((300, 20_000), dtype=np.float32) / 20_000), torch.arange(300)
    rows = torch.zeros(2, 20_000)
    found = structural(rows, rows[:1], a, regulators, lu(a[:, regulators]))
    assert float(found.size) == pytest.approx(float(a.sum(dtype=torch.float64)), rel=1e-5)


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_nothing_but_the_classifier_is_in_half_precision(form: str):
    model, batch = model_of(10, form=form, **DEEPSEM), batch_of(30, list(range(10)))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch)
    for name, value in model(batch).items():
        assert torch.equal(found[name], value), name


def plain_of(model: GRNVAE) -> GRNVAE:
    other = model_of(20, form="plain")
    other.load_state_dict(model.state_dict())
    return other
