from itertools import combinations

import numpy as np
import pytest
import torch

from grndist.data.stream.batch import Batch
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.models.grn_vae.augmentation import Seen, augmented
from tests.models.batches import batch_of

DAZZLE = {"augment_adjacency_epochs": True, "classifier_weight": 0.5, "sparse_delay": 5}


DEEPSEM = {"prior": "networks", "kl": "one_sample", "loss_entries": "all", "augmentation": 0, "sparse_delay": 0}


def model_of(n_genes: int, seed: int = 0, regulators: list[int] | None = None, **settings: object) -> GRNVAE:
    chosen = None if regulators is None else torch.tensor(regulators)
    return GRNVAE(GRNVAEConfig.model_validate(settings), n_genes, seed, chosen)


def seen(model: GRNVAE, batch: Batch) -> Seen:
    return augmented(batch, model.mean[batch.genes], model.std[batch.genes], model.config, model.config.rate or None)


def test_it_has_33923_plus_G_squared_parameters():
    for n_genes in (2, 910):
        assert sum(p.numel() for p in model_of(n_genes).parameters()) == 33_923 + n_genes**2


def test_dazzle_adds_six_and_a_frozen_one():
    parameters = list(model_of(1410, **DAZZLE).parameters())
    assert sum(p.numel() for p in parameters) == 2_022_030
    assert sum(p.numel() for p in parameters if p.requires_grad) == 33_923 + 1410**2 + 6


def test_deepsem_has_402592_plus_G_squared_parameters():
    assert sum(p.numel() for p in model_of(910, **DEEPSEM).parameters()) == 402_592 + 910**2


def test_a_list_of_regulators_makes_the_adjacency_as_many_rows():
    assert sum(p.numel() for p in model_of(50, regulators=[3, 7, 40]).parameters()) == 33_923 + 3 * 50


def test_the_adjacency_starts_near_one_over_g():
    for kind, low, high in (("uniform", 0, 2e-4), ("normal", -5e-4, 7e-4)):
        weight = model_of(101, adjacency_noise=kind).weight.detach()
        assert (weight.diagonal() == 0).all()
        weight = weight[~torch.eye(101, dtype=torch.bool)] - 0.01
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
    a, share = model.weight.detach().numpy()[np.ix_(genes, genes)], (len(genes) - 1) * len(genes) / (6 * 5)
    eye = np.eye(len(genes))
    both = network_by_hand(model.encoder, x)
    mean, log_var = both[..., 0] @ (eye - a), both[..., 1] @ (eye - a)
    z = mean + np.exp(log_var / 2) * noise
    restored = network_by_hand(model.decoder, z @ np.linalg.inv(eye - a))[..., 0]
    return {
        "reconstruction": ((x - restored) ** 2 * scored).sum() / scored.sum(),
        "kl": -0.5 * np.mean(1 + log_var - mean**2 - np.exp(log_var)),
        "sparse": 100 * np.abs(a).sum() / share / 6**2,  # pairs of the subset stand for all pairs
    }


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("entries", ["nonzero", "all"])
@pytest.mark.parametrize("genes", [[0, 1, 2, 3, 4, 5], [1, 3, 4]])
def test_the_loss_is_the_papers(form: str, entries: str, genes: list[int]):
    model = model_of(6, form=form, loss_entries=entries, augmentation=0, sparse_delay=0).double()
    with torch.no_grad():
        model.weight.add_(0.2 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).fill_diagonal_(0)
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
    found = seen(model, batch)
    assert float(found.dropped.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.allclose(found.x[found.dropped], torch.tensor(-0.25))
    assert torch.allclose(found.x[~found.dropped], (batch.expression[~found.dropped] - 0.5) / 2)
    assert torch.equal(found.target, found.x)
    assert (found.dropped & batch.is_nonzero).any()


@pytest.mark.parametrize(("entries", "share"), [("below_mean", 1.0), ("below_half_mean", 0.5)])
def test_augmentation_can_be_limited_to_small_entries(entries: str, share: float):
    model = model_of(5, augmentation=0.4, augmentation_entries=entries)
    model.standardise_with(np.full(5, 0.8), np.ones(5))
    batch = batch_of(500, [0, 1, 2, 3, 4])
    small = batch.expression < share * 0.8
    dropped = seen(model, batch).dropped
    assert not dropped[~small].any()
    assert float(dropped[small].float().mean()) == pytest.approx(0.4, abs=0.05)


def test_the_target_can_be_what_was_there_before_augmentation():
    model = model_of(5, augmentation=0.4, reconstruction_target="clean")
    batch = batch_of(100, [0, 1, 2, 3, 4])
    found = seen(model, batch)
    assert torch.equal(found.target, batch.expression)
    assert not torch.equal(found.x, found.target)


def test_z_scores_are_clipped_where_the_settings_say_so():
    model = model_of(3, augmentation=0, clip=0.5)
    found = seen(model, batch_of(100, [0, 1, 2]))
    assert found.x.max() == 0.5
    assert found.x.min() == 0


def test_evaluation_does_not_augment():
    model = model_of(5, augmentation=0.4, augment_adjacency_epochs=True)
    batch, still = batch_of(100, [0, 1, 2, 3, 4]), model_of(5, augmentation=0)
    trained, evaluated = model(batch), model.eval()(batch)
    assert evaluated["reconstruction"] == still(batch)["reconstruction"] != trained["reconstruction"]


def test_augmentation_can_rescale_the_survivors():
    batch = batch_of(50, [0, 1, 2])
    found = seen(model_of(3, augmentation=0.5, augmentation_rescale=True), batch)
    assert torch.allclose(found.x[~found.dropped], 2 * batch.expression[~found.dropped])


@pytest.mark.parametrize("both", [True, False])
def test_augmentation_is_off_where_only_the_adjacency_is_trained(both: bool):
    model = model_of(3, augmentation=0.5, augment_adjacency_epochs=both)
    model.encoder.requires_grad_(False)
    batch, still = batch_of(50, [0, 1, 2]), model_of(3, augmentation=0)
    assert (model(batch)["reconstruction"] != still(batch)["reconstruction"]) == both


def test_the_classifier_weighs_augmented_entries_by_their_odds():
    model = model_of(4, augmentation=0.2, **{**DAZZLE, "classifier_weight": 1.0})
    with torch.no_grad():
        model.classifier[-1].weight.zero_()
    batch = batch_of(500, [0, 1, 2, 3])
    share = seen(model, batch).dropped.float().mean()
    wanted = np.log(2) * (4 * share + (1 - share))  # odds (1 - 0.2) / 0.2 = 4, logits 0
    assert model(batch)["classifier"].item() == pytest.approx(float(wanted), rel=1e-5)


def test_a_classifier_without_augmentation_is_refused():
    with pytest.raises(ValueError, match="needs augmentation > 0"):
        GRNVAEConfig(augmentation=0, classifier_weight=0.5)


def test_a_constant_gene_is_zero_and_not_nan():
    """A gene that is seen in one cell, too, whose moments are over that one: the others are 0 there as in DeepSEM."""
    model = model_of(3, augmentation=0)
    model.standardise_with(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 1.0]))
    batch = batch_of(10, [0, 1, 2])
    batch.expression[:, 0] = 1.0
    batch.expression[3:, 0] = 0.0
    assert (seen(model, batch).x[:, 0] == 0).all()


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("regulators", [None, [1, 4]])
def test_the_diagonal_stays_zero(form: str, regulators: list[int] | None):
    model = model_of(5, regulators=regulators, form=form, sparse_delay=0)
    before = model.adjacency(torch.arange(5)).clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        sum(model(batch_of(20, [0, 1, 2, 3, 4], step=step)).values()).backward()
        optimizer.step()
    after = torch.zeros(5, 5)
    after[[0, 1, 2, 3, 4] if regulators is None else regulators] = model.weight.detach()
    assert (after.diagonal() == 0).all()
    assert torch.equal(model.adjacency(torch.arange(5)), after)
    assert not torch.equal(after, before)


def test_a_checkpoint_with_self_regulation_is_loaded_without():
    old = model_of(5).state_dict()
    old["weight"].fill_diagonal_(0.25)
    model = model_of(5)
    model.load_state_dict(old)
    assert (model.weight.diagonal() == 0).all()
    assert (model.weight[0, 1:] > 0).all()


def test_genes_that_are_no_regulators_have_rows_of_zeros():
    model = model_of(6, regulators=[1, 4])
    rows = model.adjacency(torch.tensor([4, 0, 1]))
    assert torch.equal(rows[0], model.weight[1].detach())
    assert (rows[1] == 0).all()
    assert torch.equal(rows[2], model.weight[0].detach())


def test_the_posterior_is_that_of_the_loss():
    for regulators in (None, [0, 3]):
        model = model_of(5, regulators=regulators, augmentation=0, prior="networks").eval()
        batch = batch_of(20, [0, 1, 2, 3, 4])
        mean, deviation = model.posterior(batch.expression)
        found = model._restored(seen(model, batch), batch)
        assert torch.allclose(mean, found.mean, atol=1e-6)
        assert torch.allclose(deviation, (found.log_var / 2).exp(), atol=1e-6)


def test_deepsems_prior_is_what_its_networks_say_without_regulation():
    model = model_of(5, **DEEPSEM).double()
    batch = batch_of(20, [0, 1, 2, 3, 4], dtype=torch.float64)
    found = model._restored(seen(model, batch), batch)
    without = torch.eye(5).double() - model.weight
    one = torch.ones(1).double()
    mean, log_var = (network(one) @ without for network in model.prior_networks)
    q = torch.distributions.Normal(found.mean, (found.log_var.exp() + 1e-8).sqrt())
    p = torch.distributions.Normal(mean, (log_var.exp() + 1e-8).sqrt())
    wanted = (q.log_prob(found.z) - p.log_prob(found.z)).mean()
    assert float(model(batch)["kl"].detach()) == pytest.approx(float(wanted.detach()), rel=1e-10)
    closed = model_of(5, **(DEEPSEM | {"kl": "closed"})).double()(batch)["kl"]
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(found.mean, (found.log_var / 2).exp()),
        torch.distributions.Normal(mean, (log_var / 2).exp()),
    )
    assert float(closed.detach()) == pytest.approx(float(exact.mean().detach()), rel=1e-10)


def test_the_sparse_loss_of_subsets_is_that_of_all_genes_on_average():
    model = model_of(6, sparse_delay=0)
    subsets = [list(genes) for genes in combinations(range(6), 3)]
    found = [float(model(batch_of(5, genes))["sparse"].detach()) for genes in subsets]
    whole = float(model(batch_of(5, [0, 1, 2, 3, 4, 5]))["sparse"].detach())
    assert np.mean(found) == pytest.approx(whole, rel=1e-5)


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
