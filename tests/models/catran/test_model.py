import numpy as np
import pytest
import torch
from torch import Tensor

from grndist.data.stream.batch import Batch
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.catran.corruption import corrupt
from grndist.objectives import huber, interventional_penalty
from tests.models.batches import batch_of

LARGE = {"embedding_std": 0.5, "linear_std": 0.3}  # far from the near-constant start, so that everything matters


def count(config: CaTranConfig, n_genes: int) -> int:
    return sum(parameter.numel() for parameter in CaTran(config, n_genes).parameters())


@pytest.mark.parametrize("n_genes", [50, 622])
def test_the_papers_model_has_40_G_plus_8898_parameters(n_genes: int):
    assert count(CaTranConfig(), n_genes) == 40 * n_genes + 8898


def test_a_literally_added_expression_has_8561():
    assert count(CaTranConfig(expression_input="add"), 100) == 40 * 100 + 8561


def test_the_submission_trains_3732():
    config = CaTranConfig(projection=False, attention="sigmoid", input_layers=1, aggregations=11, output_layers=1)
    assert count(config, 100) == 40 * 100 + 3732


def test_initial_values_are_the_papers():
    model = CaTran(CaTranConfig(), 2000, seed=1)
    assert model.embedding.std().item() == pytest.approx(0.001, rel=0.02)
    assert model.middle.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert (model.middle.bias == 0).all()
    weights = model.scores(model.embedding).softmax(1)
    assert torch.allclose(weights, torch.full_like(weights, 1 / 2000), rtol=1e-4)


def batch_norm(h: np.ndarray) -> np.ndarray:
    """Over channels, pooled over cells and genes; gamma 1, beta 0."""
    mean, var = h.mean((0, 1)), h.var((0, 1))
    return (h - mean) / np.sqrt(var + 1e-5)


def predicted_by_hand(model: CaTran, x: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """C-paper, written down once more with NumPy."""
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def linear(h: np.ndarray, name: str) -> np.ndarray:
        return h @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    e = p["embedding"][genes]
    u = linear(e, "projection")
    scores = np.exp(u @ u.T)
    attention = scores / scores.sum(1, keepdims=True)
    h = np.concatenate([x[:, :, None], np.repeat(e[None], len(x), 0)], axis=2)
    for layer in range(2):
        h = batch_norm(linear(h, f"input_linears.{layer}"))
    h = batch_norm(np.stack([attention @ cell for cell in h]))
    h = batch_norm(linear(h, "middle"))
    h = h / (1 + np.exp(-h))
    return linear(linear(h, "output.0"), "last")[:, :, 0]


@pytest.mark.parametrize("form", ["fast", "plain"])
def test_the_prediction_is_the_papers(form: str):
    model = CaTran(CaTranConfig(embedding=4, form=form, **LARGE), 9, seed=2).double().train()
    batch = batch_of(n_cells=20, genes=[0, 2, 3, 7, 8], dtype=torch.float64)
    attention = model.attention(batch.genes)
    ours = model.predict(batch.expression, batch.genes, attention).detach().numpy()
    assert np.allclose(ours, predicted_by_hand(model, batch.expression.numpy(), batch.genes.numpy()), atol=1e-12)


def test_the_loss_terms_are_weighted_means_over_hidden_and_visible_entries():
    config = CaTranConfig(embedding=4, interventional_weight=2.0, interventional_loss="squared", **LARGE)
    model = CaTran(config, 9, seed=2).double().train()
    batch = batch_of(n_cells=20, genes=[0, 2, 3, 7, 8], dtype=torch.float64)
    hidden, corrupted = corrupt(batch, 0.8, "permute")
    attention = model.attention(batch.genes)
    error = huber(model.predict(corrupted, batch.genes, attention) - batch.expression, 1.0)
    terms = model(batch)
    assert torch.allclose(terms["hidden"], 0.7 * error[hidden].mean())
    assert torch.allclose(terms["visible"], 0.3 * error[~hidden].mean())
    penalty = interventional_penalty(attention, error, batch.perturbed, batch.genes, "squared")
    assert torch.allclose(terms["interventional"], 2 * penalty)


def test_the_gradient_of_the_scores_can_be_stopped():
    grads = {}
    for through in (True, False):
        config = CaTranConfig(embedding=4, interventional_gradient=through, hidden_weight=0, visible_weight=0, **LARGE)
        model = CaTran(config, 9, seed=2).train()
        sum(model(batch_of(20, [0, 2, 3, 7, 8])).values()).backward()
        grads[through] = model.middle.weight.grad
    assert grads[True].abs().max() > 0
    assert (grads[False] == 0).all()


def full_attention(model: CaTran) -> Tensor:
    with torch.no_grad():
        return model.scores(model.embedding).softmax(1)


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
def test_adjacency_is_the_transposed_softmax_attention(attention: str):
    model = CaTran(CaTranConfig(embedding=3, attention=attention, **LARGE), 30)  # type: ignore[arg-type]
    wanted = full_attention(model).T.clone().fill_diagonal_(0)
    assert torch.allclose(model.adjacency(torch.arange(30)), wanted, atol=1e-7)
    assert torch.allclose(model.adjacency(torch.tensor([7, 3])), wanted[[7, 3]], atol=1e-7)


def test_attention_below_the_threshold_is_zero_in_training_and_extraction():
    soft = CaTran(CaTranConfig(embedding=3, **LARGE), 30)
    hard = CaTran(CaTranConfig(embedding=3, attention_threshold=0.8, **LARGE), 30)
    every = torch.arange(30)
    wanted = soft.attention(every)
    wanted = torch.where(wanted < 0.8 / 30, 0, wanted)
    assert 0.1 < (wanted == 0).float().mean() < 0.9
    assert torch.allclose(hard.attention(every), wanted, atol=1e-7)
    assert torch.allclose(hard.adjacency(every), wanted.T.clone().fill_diagonal_(0), atol=1e-7)


def test_sigmoid_attention_is_cut_at_its_own_mean():
    model = CaTran(CaTranConfig(embedding=3, attention="sigmoid", attention_threshold=1.0, **LARGE), 30)
    weights = model.scores(model.embedding).sigmoid()
    kept = weights >= weights.mean(1, keepdim=True)
    assert torch.equal(model.attention(torch.arange(30)), weights * kept)
    assert not kept.all()


def test_undirected_edges_are_the_larger_direction():
    model = CaTran(CaTranConfig(embedding=3, edges="undirected", **LARGE), 30)
    attention = full_attention(model)
    wanted = torch.maximum(attention, attention.T).fill_diagonal_(0)
    assert torch.allclose(model.adjacency(torch.arange(30)), wanted, atol=1e-7)


def test_perturbed_gene_is_the_regulator(monkeypatch: pytest.MonkeyPatch):
    """A knock-down whose target is then predicted better raises the edge regulator -> target."""
    config = CaTranConfig(embedding=8, hidden_weight=0, visible_weight=0, interventional_gradient=False, **LARGE)
    model = CaTran(config, 4, seed=0)
    batch = batch_of(40, [0, 1, 2, 3], perturbed=[-1] * 20 + [2] * 20)
    errors = torch.ones(40, 4)
    errors[20:, 1] = 0.05
    monkeypatch.setattr(CaTran, "predict", lambda self, x, genes, attention: batch.expression + errors)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    before = model.adjacency(torch.tensor([2]))[0, 1]
    for _ in range(50):
        optimizer.zero_grad()
        model(batch)["interventional"].backward()
        optimizer.step()
    row = model.adjacency(torch.tensor([2]))[0]
    assert row[1] > before
    assert row.argmax() == 1


def test_a_batch_is_not_changed():
    batch = batch_of(20, [0, 1, 2])
    before = batch.expression.clone()
    CaTran(CaTranConfig(), 3)(batch)
    assert torch.equal(batch.expression, before)
    assert isinstance(batch, Batch)
