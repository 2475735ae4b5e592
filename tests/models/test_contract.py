"""What every model promises, checked over the union of model kinds."""

import pytest
import torch

from grndist import models
from grndist.data.facts import Facts
from grndist.data.normalise import ExpressionConfig
from grndist.data.store import open_store
from grndist.data.view import whole
from grndist.optim import BlockParameter
from tests.models.batches import batch_of

N_GENES = 12
VARIANTS = {
    "catran": {"kind": "catran", "embedding": 4, "embedding_std": 0.3, "linear_std": 0.3},
    "catran_submission": {
        "kind": "catran", "embedding": 4, "projection": False, "attention": "sigmoid", "input_layers": 1,
        "aggregations": 11, "output_layers": 1, "embedding_std": 0.3, "linear_std": 0.3, "edges": "undirected",
    },
    "catran_plain": {"kind": "catran", "form": "plain", "embedding": 4, "embedding_std": 0.3, "linear_std": 0.3},
    "catran_d": {"kind": "catran_d", "form": "bilinear", "embedding": 4, "start": "random"},
    "catran_d_attention": {"kind": "catran_d", "form": "attention", "embedding": 4, "heads": 2},
    "grn_vae": {"kind": "grn_vae", "sparse_delay": 0},
    "grn_vae_plain": {"kind": "grn_vae", "form": "plain", "sparse_delay": 0},
    "deepsem": {"kind": "grn_vae", "prior": "networks", "kl": "one_sample", "loss_entries": "all", "sparse_delay": 0},
    "dazzle": {"kind": "grn_vae", "sparse_delay": 0, "classifier_weight": 0.5, "augment_adjacency_epochs": True},
}  # fmt: skip
GENES = [1, 2, 5, 6, 9]


@pytest.fixture(scope="module")
def facts(pristine_store):
    return Facts(whole(open_store(pristine_store)), ExpressionConfig())


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest, facts: Facts):
    return build(request.param, facts)


def build(name: str, facts: Facts, seed: int = 0):
    settings = VARIANTS[name]
    return models.build(models.CONFIGS[settings["kind"]].model_validate(settings), facts, seed).model


def test_every_kind_has_a_variant_here():
    assert {settings["kind"] for settings in VARIANTS.values()} == set(models.CONFIGS)


def test_losses_are_finite_named_scalars(model):
    terms = model(batch_of(30, GENES))
    assert len(terms) >= 2
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())


def test_no_gene_regulates_itself_and_rows_are_regulators(model):
    every = model.eval().adjacency(torch.arange(model.n_regulators))
    assert every.shape == (model.n_regulators, N_GENES)
    assert model.n_regulators >= N_GENES
    assert (every.diagonal() == 0).all()
    assert torch.allclose(model.adjacency(torch.tensor([4, 2])), every[[4, 2]], rtol=1e-5)
    assert model.signed or (every >= 0).all()


def test_only_the_subsets_genes_get_a_gradient(model):
    sum(model(batch_of(30, GENES)).values()).backward()
    others = [gene for gene in range(N_GENES) if gene not in GENES]
    per_gene = [p for p in model.parameters() if p.requires_grad and len(p) in (N_GENES, model.n_regulators)]
    assert per_gene
    for parameter in per_gene:
        if isinstance(parameter, BlockParameter):  # its gradient is that of the subset's block
            assert torch.equal(parameter.block.rows, torch.tensor(GENES))
            assert torch.equal(parameter.block.columns, torch.tensor(GENES))
            assert parameter.block.values.grad.abs().sum() > 0
            assert parameter.grad is None
            continue
        assert parameter.grad[GENES].abs().sum() > 0
        assert (parameter.grad[others] == 0).all()
        if parameter.shape[1:] == (N_GENES,):
            assert (parameter.grad[:, others] == 0).all()


def test_same_seed_same_bits(model, request: pytest.FixtureRequest, facts: Facts):
    name = request.node.callspec.params["model"]
    same, other = build(name, facts), build(name, facts, seed=1)
    batch = batch_of(30, GENES)
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in model.state_dict().items())
    assert any(not torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    first, second = model(batch), same(batch)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_groups_hold_every_trainable_parameter_once(model):
    grouped = [id(p) for group in model.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_outside_of_the_touched_rows_gradients_are_zero(model):
    batch = batch_of(30, GENES)
    sum(model(batch).values()).backward()
    touched = model.touched_rows(batch.genes)
    grouped = {id(p) for group in model.parameter_groups().values() for p in group}
    for parameter, rows in touched:
        assert id(parameter) in grouped
        assert parameter.grad[rows].abs().sum() > 0
        assert (parameter.grad.index_fill(0, rows, 0) == 0).all()
    known = {id(parameter) for parameter, _ in touched}
    per_gene = [p for p in model.parameters() if p.grad is not None and len(p) in (N_GENES, model.n_regulators)]
    assert {id(p) for p in per_gene if not isinstance(p, BlockParameter)} == known
