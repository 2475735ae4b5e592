"""The prediction of an entry from its cell's others, against conditional expectations of a Gaussian by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.models.grn_vae.held_out import error_from_others, from_others
from tests.models.batches import batch_of

N_GENES = 4


def by_hand(h: np.ndarray, a: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """E(h_g | the others) for rows h = mean + z (I - a)^-1, z ~ N(0, variance), from the covariance."""
    inverse = np.linalg.inv(np.eye(len(a)) - a)
    covariance = inverse.T @ np.diag(variance) @ inverse
    found = np.empty_like(h)
    for gene in range(len(a)):
        others = np.arange(len(a)) != gene
        share = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, gene])
        found[:, gene] = mean[gene] + (h - mean)[:, others] @ share
    return found


def random_model(regulators: list[int] | None, **settings: object) -> GRNVAE:
    """With strong regulation and moments of its own."""
    chosen = None if regulators is None else torch.tensor(regulators)
    model = GRNVAE(GRNVAEConfig.model_validate(settings), N_GENES, seed=0, regulators=chosen)
    rng = np.random.default_rng(1)
    rows = np.arange(N_GENES) if regulators is None else np.array(regulators)
    weight = rng.normal(scale=0.4, size=(len(rows), N_GENES))
    weight[np.arange(len(rows)), rows] = 0
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(weight))
    model.standardise_with(rng.uniform(0.2, 1, N_GENES), rng.uniform(0.5, 2, N_GENES))
    return model.eval()


def square(model: GRNVAE) -> np.ndarray:
    return model.adjacency(torch.arange(N_GENES)).double().numpy()


def network(of: nn.Module, x: np.ndarray, constant: bool = False) -> np.ndarray:
    """Its first output for every entry, in float64."""
    h = np.stack([x, np.ones_like(x)], axis=-1) if constant else x[..., None]
    weights = [parameter.detach().double().numpy() for parameter in of.parameters()]
    for layer in range(3):
        h = h @ weights[2 * layer].T + weights[2 * layer + 1]
        h = np.tanh(h) if layer < 2 else h
    return h[..., 0]


@given(seed=st.integers(0, 2**32 - 1), regulators=st.sampled_from([None, [1, 2], [0, 1, 3]]), prior=st.booleans())
def test_an_entry_is_predicted_as_the_gaussian_says(seed: int, regulators: list[int] | None, prior: bool):
    rng = np.random.default_rng(seed)
    rows = list(range(N_GENES)) if regulators is None else regulators
    a = np.zeros((N_GENES, N_GENES))
    a[rows] = rng.uniform(-0.6, 0.6, (len(rows), N_GENES)) * (np.arange(N_GENES) != np.array(rows)[:, None])
    h, given_prior = rng.normal(size=(5, N_GENES)), rng.normal(size=(2, N_GENES)) * prior
    variance = np.exp(given_prior[1] @ (np.eye(N_GENES) - a))
    found = from_others(
        torch.from_numpy(h),
        torch.from_numpy(a[rows]),
        None if regulators is None else torch.tensor(regulators),
        torch.from_numpy(given_prior) if prior else None,
    )
    np.testing.assert_allclose(found.numpy(), by_hand(h, a, given_prior[0], variance), rtol=1e-8, atol=1e-8)


def test_without_regulation_nothing_is_known_but_the_mean():
    h, a = torch.randn(3, N_GENES), torch.zeros(N_GENES, N_GENES)
    assert (from_others(h, a, None, None) == 0).all()
    mean = torch.arange(4.0)
    assert torch.allclose(from_others(h, a, None, torch.stack([mean, mean])), mean.expand(3, -1), atol=1e-6)


@pytest.mark.parametrize("regulators", [None, [0, 3]])
@pytest.mark.parametrize("settings", [{}, {"prior": "networks", "clip": 0.8}])
@pytest.mark.parametrize("genes", [[0, 1, 2, 3], [0, 1, 3]])
def test_the_error_is_that_of_real_entries_as_z_scores(
    regulators: list[int] | None, settings: dict[str, object], genes: list[int]
):
    model = random_model(regulators, **settings)
    batches = [batch_of(n_cells, genes, step=step) for step, n_cells in enumerate((6, 3))]
    errors = []
    for batch in batches:
        mean, std = (moment.double().numpy()[genes] for moment in (model.mean, model.std))
        x = (batch.expression.double().numpy() - mean) / std
        x = x.clip(-0.8, 0.8) if "clip" in settings else x
        a = square(model)[np.ix_(genes, genes)]
        given_prior = model.prior(batch.genes)
        m, log_variance = np.zeros((2, len(genes))) if given_prior is None else given_prior.detach().double().numpy()
        variance = np.exp(log_variance @ (np.eye(len(genes)) - a))
        guess = by_hand(network(model.encoder, x, constant="prior" in settings), a, m, variance)
        errors.append((network(model.decoder, guess) - x)[batch.expression.numpy() != 0] ** 2)
    assert error_from_others(model, batches) == pytest.approx(np.concatenate(errors).mean(), rel=1e-4)


def test_what_an_entry_itself_is_does_not_matter_for_its_guess():
    a = torch.from_numpy(square(random_model(None)))
    h = torch.randn(2, N_GENES, dtype=torch.float64)
    changed = h.clone()
    changed[:, 2] += 5
    one, other = (from_others(values, a, None, None) for values in (h, changed))
    assert torch.allclose(one[:, 2], other[:, 2])
    assert not torch.allclose(one[:, 1], other[:, 1])


def test_a_stored_zero_does_not_count_whatever_its_value_is():
    model, batch = random_model(None), batch_of(5, [0, 1, 2, 3])
    none = replace(batch, stored_nonzero=torch.zeros(5, N_GENES, dtype=torch.bool))
    assert error_from_others(model, [batch, none]) == error_from_others(model, [batch])
