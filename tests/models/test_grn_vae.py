import numpy as np
import pytest
import torch

from grndist.data.stream.batch import Batch
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from tests.models.batches import batch_of

DAZZLE = {"augment_adjacency_epochs": True, "classifier_weight": 0.5, "sparse_delay": 5}


def model_of(n_genes: int, seed: int = 0, **settings: object) -> GRNVAE:
    return GRNVAE(GRNVAEConfig.model_validate(settings), n_genes, seed)


def test_it_has_33923_plus_G_squared_parameters():
    for n_genes in (2, 910):
        assert sum(p.numel() for p in model_of(n_genes).parameters()) == 33_923 + n_genes**2


def test_dazzle_adds_six_and_a_frozen_one():
    parameters = list(model_of(1410, **DAZZLE).parameters())
    assert sum(p.numel() for p in parameters) == 2_022_030
    assert sum(p.numel() for p in parameters if p.requires_grad) == 33_923 + 1410**2 + 6


def test_the_adjacency_starts_near_one_over_g():
    for kind, low, high in (("uniform", 0, 2e-4), ("normal", -5e-4, 7e-4)):
        weight = model_of(101, adjacency_noise=kind).weight.detach() - 0.01
        assert low <= weight.min() < weight.max() <= high
        assert float(weight.mean()) == pytest.approx(1e-4, abs=1e-5)


def network_by_hand(model: torch.nn.Sequential, x: np.ndarray) -> np.ndarray:
    weights = [p.detach().numpy() for p in model.parameters()]
    h = x[..., None]
    for layer in range(3):
        h = h @ weights[2 * layer].T + weights[2 * layer + 1]
        h = np.tanh(h) if layer < 2 else h
    return h


def by_hand(model: GRNVAE, batch: Batch, x: np.ndarray, scored: np.ndarray, noise: np.ndarray) -> dict[str, float]:
    """Section by section from the papers, with NumPy. x: standardised input."""
    genes = batch.genes.numpy()
    a = model.weight.detach().numpy()[np.ix_(genes, genes)] * (1 - np.eye(len(genes)))
    eye = np.eye(len(genes))
    both = network_by_hand(model.encoder, x)
    mean, log_var = both[..., 0] @ (eye - a), both[..., 1] @ (eye - a)
    z = mean + np.exp(log_var / 2) * noise
    restored = network_by_hand(model.decoder, z @ np.linalg.inv(eye - a))[..., 0]
    return {
        "reconstruction": ((x - restored) ** 2 * scored).sum() / scored.sum(),
        "kl": -0.5 * np.mean(1 + log_var - mean**2 - np.exp(log_var)),
        "sparse": 100 * np.abs(a).sum() / len(genes) ** 2,
    }


@pytest.mark.parametrize("entries", ["nonzero", "all"])
@pytest.mark.parametrize("genes", [[0, 1, 2, 3, 4, 5], [1, 3, 4]])
def test_the_loss_is_the_papers(entries: str, genes: list[int]):
    model = model_of(6, loss_entries=entries, augmentation=0, sparse_delay=0).double()
    with torch.no_grad():
        model.weight.add_(0.2 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    model.standardise_with(np.linspace(0.1, 0.6, 6), np.linspace(0.5, 2, 6))
    batch = batch_of(30, genes, dtype=torch.float64)
    x = (batch.expression.numpy() - model.mean.numpy()[genes]) / model.std.numpy()[genes]
    scored = batch.is_nonzero.numpy() if entries == "nonzero" else np.ones_like(x)
    noise = batch.draw("latent", lambda rng, rows: rng.standard_normal((30, len(genes)), dtype=np.float32))
    wanted = by_hand(model, batch, x, scored, noise.numpy())
    ours = {name: value.item() for name, value in model(batch).items()}
    assert ours == pytest.approx(wanted, rel=1e-10)


def test_the_sparse_loss_waits_for_its_epoch():
    model = model_of(4, sparse_delay=3)
    assert "sparse" not in model(batch_of(10, [0, 1, 2, 3], epoch=2))
    assert "sparse" in model(batch_of(10, [0, 1, 2, 3], epoch=3))


def test_augmentation_zeroes_before_the_z_score_and_keeps_the_mask_of_the_data():
    model = model_of(5, augmentation=0.3)
    model.standardise_with(np.full(5, 0.5), np.full(5, 2.0))
    batch = batch_of(2000, [0, 1, 2, 3, 4])
    dropped, x = model.augment(batch)
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.allclose(x[dropped], torch.tensor(-0.25))
    assert torch.allclose(x[~dropped], (batch.expression[~dropped] - 0.5) / 2)
    assert (dropped & batch.is_nonzero).any()


def test_augmentation_can_rescale_the_survivors():
    batch = batch_of(50, [0, 1, 2])
    dropped, x = model_of(3, augmentation=0.5, augmentation_rescale=True).augment(batch)
    assert torch.allclose(x[~dropped], 2 * batch.expression[~dropped])


@pytest.mark.parametrize("both", [True, False])
def test_augmentation_is_off_where_only_the_adjacency_is_trained(both: bool):
    model = model_of(3, augmentation=0.5, augment_adjacency_epochs=both)
    model.encoder.requires_grad_(False)
    dropped, _ = model.augment(batch_of(50, [0, 1, 2]))
    assert dropped.any() == both


def test_the_classifier_weighs_augmented_entries_by_their_odds():
    model = model_of(4, augmentation=0.2, **{**DAZZLE, "classifier_weight": 1.0})
    with torch.no_grad():
        model.classifier[-1].weight.zero_()
    batch = batch_of(500, [0, 1, 2, 3])
    dropped, _ = model.augment(batch)
    share = dropped.float().mean()
    wanted = np.log(2) * (4 * share + (1 - share))  # odds (1 - 0.2) / 0.2 = 4, logits 0
    assert model(batch)["classifier"].item() == pytest.approx(float(wanted), rel=1e-5)


def test_a_classifier_without_augmentation_is_refused():
    with pytest.raises(ValueError, match="needs augmentation > 0"):
        GRNVAEConfig(augmentation=0, classifier_weight=0.5)


def test_a_constant_gene_is_zero_and_not_nan():
    model = model_of(3, augmentation=0)
    model.standardise_with(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 1.0]))
    batch = batch_of(10, [0, 1, 2])
    batch.expression[:, 0] = 1.0
    _, x = model.augment(batch)
    assert (x[:, 0] == 0).all()


def test_the_diagonal_is_never_used():
    model = model_of(5, augmentation=0)
    batch = batch_of(20, [0, 1, 2, 3, 4])
    before = model(batch)
    with torch.no_grad():
        model.weight.fill_diagonal_(7.0)
    after = model(batch)
    assert all(torch.equal(before[name], after[name]) for name in before)
    sum(after.values()).backward()
    assert (model.weight.grad.diagonal() == 0).all()


def test_a_planted_network_is_recovered_above_chance():
    """Three regulators with four targets each; A ranks true pairs above the others."""
    rng = np.random.default_rng(0)
    regulators = rng.normal(size=(400, 3))
    targets = np.repeat(regulators, 4, axis=1) + 0.5 * rng.normal(size=(400, 12))
    values = torch.from_numpy(np.concatenate([regulators, targets], axis=1).astype(np.float32))
    model = model_of(15, loss_entries="all", sparse_delay=0, alpha=10.0)
    groups = model.parameter_groups()
    optimizer = torch.optim.Adam(
        [{"params": groups["networks"], "lr": 2e-3}, {"params": groups["adjacency"], "lr": 5e-3}], betas=(0.9, 0.9)
    )
    for step in range(400):
        rows = torch.from_numpy(rng.choice(400, 64))
        batch = batch_of(64, list(range(15)), step=step)
        batch = Batch(**{**batch.__dict__, "expression": values[rows], "stored_nonzero": values[rows] != 0})
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    block = model.adjacency(torch.arange(3))[:, 3:].abs()
    true = torch.eye(3, dtype=torch.bool).repeat_interleave(4, dim=1)
    assert block[true].mean() > 10 * block[~true].mean()
