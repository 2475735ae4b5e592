"""CaTran-D against its definition: cells and moments train the same weights, and the closed form is the optimum."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from grndist import models
from grndist.data.facts import Facts
from grndist.data.ingest.build import write_store
from grndist.data.moments import standardised, sums
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import perturbations_of
from grndist.data.store import Store, open_store
from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import ShuffledPlan
from grndist.data.view import whole
from grndist.errors import UserError
from grndist.genes import NON_TARGETING
from grndist.models import catran_d
from grndist.models.catran_d import CaTranD, CaTranDConfig
from grndist.models.catran_d.model import _low_rank_terms
from grndist.models.catran_d.scores import scores
from grndist.models.catran_d.solve import optimum, precision, residual
from grndist.models.catran_d.weights import Attention, Bilinear
from grndist.models.layers import fill
from grndist.optim import OptimizerConfig, Optimizers
from grndist.training.loop import State, train
from tests.conftest import genes, small_counts

FORMS = ["bilinear", "attention"]
N_GENES = 12


@pytest.fixture
def facts(store: Store) -> Facts:
    return Facts(whole(store), ExpressionConfig(), products=True)


def built(facts: Facts, seed: int = 0, **settings) -> models.Built:
    return models.build(CaTranDConfig(**{"form": "bilinear", "embedding": 4, "heads": 2} | settings), facts, seed)


def every_cell(facts: Facts) -> Batch:
    """One batch of all cells and genes, in float64."""
    plan = ShuffledPlan(facts.view.n_cells, facts.n_genes, facts.view.n_cells, facts.n_genes, seed=0)
    batch = Loader(facts.view, plan, facts.expression).batch_at(0)
    return Batch(**{**batch.__dict__, "expression": batch.expression.double()})


def exact(facts: Facts, model: CaTranD) -> MomentsBatch:
    """E[x x^T], E[z' x^T] and E[z'^2] of all cells by their definition, in float64."""
    batch = every_cell(facts)
    inputs = torch.arange(model.n_regulators)
    x, target, _ = model.double().standardised(batch, inputs)
    n = len(x)
    return MomentsBatch(x.T @ x / n, target.T @ x / n, target.square().mean(0), batch.genes, n_cells=n, epoch=0, step=0)


def one_pass(facts: Facts, model: CaTranD) -> MomentsBatch:
    """The same by the pass over the store, which standardises the model, both in float64."""
    known = perturbations_of(facts.view)
    found = standardised(sums(facts.view, facts.expression, known, precision="float64"), known, model.config.gain)
    model.double()
    fill(model.mean, found.mean)
    fill(model.deviation, found.deviation)
    second, cross, square = map(torch.from_numpy, (found.second, found.cross, found.target_square))
    return MomentsBatch(second, cross, square, torch.arange(facts.n_genes), found.n_cells, epoch=0, step=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strength", ["one", "observed"])
def test_moments_of_the_store_are_those_of_its_cells(facts: Facts, form: str, strength: str):
    found = built(facts, form=form, strength=strength)
    wanted = exact(facts, found.model)
    for name in ("second", "cross", "target_square"):
        assert torch.allclose(getattr(found.moments, name).double(), getattr(wanted, name), atol=2e-6), name


@pytest.mark.parametrize("form", FORMS)
def test_cells_and_moments_give_the_same_loss_and_gradients(facts: Facts, form: str):
    model = built(facts, form=form, start="random").model
    moments, batch = exact(facts, model), every_cell(facts)
    gradients = []
    for one in (moments, batch):
        terms = model(one)
        gradients.append((terms, torch.autograd.grad(sum(terms.values()), list(model.parameters()))))
    (terms, of_moments), (others, of_cells) = gradients
    for name, value in terms.items():
        assert torch.isclose(value, others[name], rtol=1e-12), name
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(of_moments, of_cells, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_training_by_moments_and_by_all_cells_gives_the_same_weights(store: Store, form: str):
    facts = Facts(whole(store), ExpressionConfig(transform="none"), products=True)  # counts are exact in any precision
    optimizer = OptimizerConfig(optimizer="adamw", learning_rate=0.02, betas=(0.9, 0.99), rate_over_time="one_cycle")
    trained = []
    for source in ("moments", "cells"):
        model = built(facts, form=form, start="random").model
        moments = one_pass(facts, model)
        batch = moments if source == "moments" else every_cell(facts)
        state = State(model, Optimizers(optimizer, model.parameter_groups(), 60))
        train(state, lambda step, batch=batch: batch, 60, lambda *news: None)
        everything = torch.arange(model.n_regulators)
        trained.append(model.weights(everything[:N_GENES], everything))
    assert (trained[0] - trained[1]).abs().max() < 1e-8
    assert trained[0].abs().max() > 1e-2


def test_masking_leaves_out_a_perturbed_genes_own_entries(facts: Facts):
    batch = every_cell(facts)
    model = built(facts, own_perturbation="masked", start="random").model.double()
    x, target, own = model.standardised(batch, torch.arange(model.n_regulators))
    weights = model.weights(batch.genes, torch.arange(model.n_regulators))
    wanted = torch.where(own, 0, x @ weights.T - target).square().mean()
    assert own.any()
    assert torch.isclose(model(batch)["prediction"], wanted, rtol=1e-12)


def test_inputs_are_what_was_knocked_down_and_standardised_expression(facts: Facts):
    model = built(facts, gain=0.5).model.double()
    batch = every_cell(facts)
    inputs = torch.arange(model.n_regulators)
    x, target, own = model.standardised(batch, inputs)
    names = [*facts.view.panel.names, *built(facts).unmeasured]
    labels = [facts.view.label_names[label] for label in batch.labels]
    assert names[N_GENES:] == ["elsewhere"]
    z = (batch.expression - model.mean) / model.deviation
    for cell, label in enumerate(labels[:60]):
        perturbed = [] if label == "non-targeting" else [names.index(part) for part in label.split("+")]
        assert (x[cell, perturbed] == -1).all()
        others = [gene for gene in range(N_GENES) if gene not in perturbed]
        assert torch.equal(x[cell, others], 0.5 * z[cell, others])
        assert own[cell].nonzero()[:, 0].tolist() == [gene for gene in perturbed if gene < N_GENES]
        assert (target[cell, own[cell]] == 0).all()
    controls = torch.tensor([label == "non-targeting" for label in labels])
    assert torch.allclose(z[controls].mean(0), torch.zeros(N_GENES, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(z.std(0, correction=0), torch.ones(N_GENES, dtype=torch.float64), atol=1e-5)
    assert (x[controls, N_GENES:] == 0).all()


def test_a_step_of_some_genes_drops_knock_downs_outside_it_and_keeps_unmeasured_inputs(facts: Facts):
    model = built(facts).model
    batch = every_cell(facts)
    chosen = torch.tensor([0, 3, 7])
    part = Batch(**{**batch.__dict__, "expression": batch.expression[:, chosen].float(), "genes": chosen})
    x, _, own = model.standardised(part, torch.tensor([0, 3, 7, 12]))
    labels = np.array([facts.view.label_names[label] for label in batch.labels])
    assert (x[labels == "g3"][:, 1] == -1).all()
    assert (x[labels == "g1+g3"][:, 1] == -1).all()
    assert not own[labels == "g1"].any()
    assert (x[labels == "elsewhere"][:, 3] == -1).all()
    assert all(torch.isfinite(term) for term in model(part).values())


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(0, 3), st.sampled_from([0.01, 1.0]))
def test_the_closed_form_is_ridge_regression_without_self(seed: int, n_targets: int, extra: int, ridge: float):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, n_targets + extra)) @ rng.normal(size=(n_targets + extra, n_targets + extra))
    z = x[:, :n_targets] + rng.normal(size=(40, n_targets))
    second, cross = x.T @ x / 40, z.T @ x / 40
    weights = optimum(precision(second.copy(), ridge), cross)
    for target in range(n_targets):
        others = np.delete(np.arange(n_targets + extra), target)
        alone = np.linalg.solve(second[np.ix_(others, others)] + ridge * np.eye(len(others)), cross[target, others])
        assert np.allclose(weights[target, others], alone, atol=1e-8 * np.abs(alone).max())
        assert weights[target, target] == 0
        least = ((z[:, target] - x[:, others] @ alone) ** 2).mean() + ridge * alone @ alone
        found = residual(weights, cross, (z**2).mean(0), expression_ridge=0.0)
        assert np.isclose(found[target] ** 2, least)


def test_without_knock_downs_the_scale_is_that_of_partial_correlation():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    z = (z - z.mean(0)) / z.std(0)
    gain, ridge = 0.2, 0.04  # a ridge of 1 per unit variance: shrunk by a half
    second, cross = gain**2 * z.T @ z / 500, gain * z.T @ z / 500
    inverse = precision(second, ridge)
    weights = optimum(inverse, cross)
    scaled = weights / np.sqrt(inverse.diagonal()) / residual(weights, cross, np.ones(6), ridge / gain**2)[:, None]
    shrunk = np.linalg.inv(0.5 * z.T @ z / 500 + 0.5 * np.eye(6))
    wanted = -shrunk / np.sqrt(np.outer(shrunk.diagonal(), shrunk.diagonal()))
    np.fill_diagonal(wanted, 0)
    assert np.allclose(scaled, wanted, atol=1e-10)


@pytest.mark.parametrize("form", ["full", *FORMS])
def test_a_perturbed_gene_that_is_the_same_everywhere_is_a_target_of_nothing(store: Store, form: str):
    counts, obs = small_counts()
    constant = counts.toarray()
    constant[:, 3] = 2
    path = Path(store.url).with_name("constant.zarr")
    write_store(path, sparse.csr_matrix(constant), obs, genes(N_GENES), "counts", {})
    facts = Facts(whole(open_store(path)), ExpressionConfig(transform="none"), products=True)
    model = built(facts, form=form, ridge=0.0).model.eval()
    assert torch.isfinite(model.adjacency(torch.arange(model.n_regulators))).all()
    assert model.residual[3] == 1


def test_a_panel_of_one_gene_has_no_edge(facts: Facts):
    view = replace(facts.view, columns=np.array([3]), labels=pd.Categorical(np.resize([NON_TARGETING, "g3"], 300)))
    model = built(replace(facts, view=view)).model.eval()
    assert model.adjacency(torch.arange(1)).tolist() == [[0.0]]


def test_memory_is_what_was_announced(facts: Facts):
    """Of 300 cells, each with 4 of 1,200 unmeasured genes knocked down."""
    many = ["+".join(f"far{4 * cell + guide}" for guide in range(4)) for cell in range(300)]
    view = replace(facts.view, labels=pd.Categorical([NON_TARGETING, *many[1:]]))
    built(facts)  # loads what is compiled
    tracemalloc.start()
    found = built(replace(facts, view=view), seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.model.n_regulators == N_GENES + 4 * 299
    announced = catran_d.bytes_needed(found.model.config, N_GENES, N_GENES + 4 * 299, 300)
    assert 0.9 * announced < peak < 1.15 * announced


def test_a_singular_problem_says_what_to_raise():
    with pytest.raises(UserError, match=r"model.ridge=0: the second moments of the inputs are singular.*raise it"):
        precision(np.ones((3, 3)), 0.0)


def test_low_rank_terms_are_those_of_the_whole_matrix():
    rng = torch.Generator().manual_seed(0)
    bilinear = Bilinear(6, 8, 3).double()
    genes = torch.arange(6)
    x = torch.randn(50, 8, generator=rng, dtype=torch.float64)
    z = torch.randn(50, 6, generator=rng, dtype=torch.float64)
    batch = MomentsBatch(x.T @ x / 50, z.T @ x / 50, z.square().mean(0), genes, 50, 0, 0)
    weights = bilinear(genes, torch.arange(8))
    linear, quadratic, square = _low_rank_terms(bilinear, batch, torch.arange(8))
    assert torch.isclose(linear, (weights * batch.cross).sum(), rtol=1e-12)
    assert torch.isclose(quadratic, ((weights @ batch.second) * weights).sum(), rtol=1e-12)
    assert torch.isclose(square, weights.square().sum(), rtol=1e-12)


def test_a_start_of_full_rank_is_the_matrix_itself():
    wanted = np.random.default_rng(0).normal(size=(5, 7))
    np.fill_diagonal(wanted, 0)
    bilinear = Bilinear(5, 7, 5).double()
    bilinear.start_from(wanted, seed=0)
    assert np.allclose(bilinear(torch.arange(5), torch.arange(7)).detach().numpy(), wanted)


def test_attention_is_its_equation_and_keeps_weights_comparable_over_a_subset():
    attention = Attention(6, 8, d=4, heads=2, seed=1).double()
    with torch.no_grad():
        attention.bias.normal_(generator=torch.Generator().manual_seed(0))
    targets, inputs = torch.tensor([1, 4]), torch.tensor([0, 1, 4, 6])
    block = attention(targets, inputs)
    for row, t in enumerate(targets):
        wanted = torch.zeros(4, dtype=torch.float64)
        for h in range(2):
            raw = attention.query[t, h] @ attention.key[inputs, h].T / 2**0.5 + attention.bias[inputs, h]
            raw[inputs == t] = -torch.inf
            sign = attention.value[t, h] @ attention.role[inputs, h].T / 2**0.5
            wanted += attention.log_gain[t, h].exp() * raw.softmax(0) * sign
        assert torch.allclose(block[row], 6**0.5 * 4 / 8 * wanted)
    assert block[0, 1] == block[1, 2] == 0
    every = attention(torch.arange(6), torch.arange(8))
    attention.eval()
    assert torch.allclose(attention.block(targets, inputs), every[targets][:, inputs])


def test_scores_follow_the_evidence_and_carry_its_sign():
    rng = np.random.default_rng(0)
    n, inputs = 200, torch.tensor([3, 7, 200])  # the last one is not measured
    associations = torch.from_numpy(rng.normal(size=(201, n)) * 0.05)
    associations[torch.arange(n), torch.arange(n)] = 0
    effects = torch.from_numpy(rng.normal(size=(3, n)))
    effects[0, 3] = effects[1, 7] = 0
    activated, repressed = torch.arange(20, 30), torch.arange(50, 60)
    effects[0, activated], associations[3, activated] = -8.0, 0.4  # its knock-down lowers them
    effects[0, repressed], associations[3, repressed] = 8.0, -0.4
    associations[11, 60:70] = 0.4  # not perturbed
    found = scores(inputs, associations[inputs], effects, 1.0).of(torch.arange(201), associations)
    assert (found[3, activated] > 0).all()
    assert (found[3, repressed] < 0).all()
    rest = found[3].abs().clone()
    rest[activated] = rest[repressed] = 0
    assert rest.max() < found[3, activated].abs().min()
    assert found[3, 3] == found[7, 7] == found[12, 12] == 0
    assert (found[11, 60:70] > found[12].abs().max()).all()
    assert (found[11, 60:70] < found[3, activated].min()).all()  # one kind of evidence says less than two
    assert torch.isfinite(found).all()


def test_scores_take_little_memory_and_float32_is_enough():
    rng = torch.Generator().manual_seed(0)
    associations, effects = (torch.randn(1500, 1500, generator=rng, dtype=torch.float64) for _ in range(2))
    effects[::3, ::20] *= 6
    inputs = torch.arange(1500)
    wanted = scores(inputs, associations.clone(), effects, 0.75)
    single, other = associations.float(), effects.float()
    tracemalloc.start()
    found = scores(inputs, single, other, 0.75)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 1500**2  # beside the two, and a copy of one of them
    assert torch.allclose(found.weights.double(), wanted.weights, rtol=1e-4, atol=1e-6)
    assert (found.offset, found.slope) == pytest.approx((wanted.offset, wanted.slope), rel=1e-4)


def test_a_knock_down_that_lowers_its_target_makes_an_activating_edge(facts: Facts):
    model = built(facts, form="full").model.eval()
    names = facts.view.panel.names
    adjacency = model.adjacency(torch.arange(model.n_regulators))
    assert adjacency.shape == (13, 12)
    assert adjacency[names.index("g1")].abs().argmax() == names.index("g5")  # the fixture trebles g5 where g1 is gone
    assert adjacency[names.index("g1"), names.index("g5")] < 0


def test_what_is_loaded_gives_the_same_network(facts: Facts):
    for form in ("full", *FORMS):
        config = CaTranDConfig(form=form, embedding=4, heads=2)
        model = models.build(config, facts, 0).model.eval()
        again = models.load(config, N_GENES, model.state_dict())
        rows = torch.arange(model.n_regulators)
        assert torch.equal(again.adjacency(rows), model.adjacency(rows)), form


def test_scores_are_made_anew_after_training(facts: Facts):
    model = built(facts, start="random").model.eval()
    before = model.adjacency(torch.arange(3))
    model.train()
    with torch.no_grad():
        model.weights.query.mul_(-1)
    assert not torch.equal(model.eval().adjacency(torch.arange(3)), before)


def test_unmeasured_perturbations_can_be_ignored(facts: Facts):
    found = built(facts, unmeasured=False)
    assert found.unmeasured == ()
    assert found.model.n_regulators == N_GENES


def test_a_target_without_any_input_has_no_weights_and_no_nan():
    attention = Attention(3, 3, d=4, heads=2)
    alone = attention(torch.tensor([1]), torch.tensor([1]))
    alone.sum().backward()
    assert (alone == 0).all()
    assert not any(p.grad is not None and p.grad.isnan().any() for p in attention.parameters())
