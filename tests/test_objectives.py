import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.genes import CONTROL, UNMAPPED
from grndist.objectives import gaussian_kl, huber, interventional_penalty, masked_mean


def test_huber_is_torchs():
    error = torch.linspace(-3, 3, 61, dtype=torch.float64)
    for delta in (0.5, 1.0, 2.0):
        wanted = torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)
        assert torch.allclose(huber(error, delta), wanted, atol=1e-15)


def test_kl_is_torchs():
    mean, log_var = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normal, zero = torch.distributions.Normal, torch.zeros((), dtype=torch.float64)
    wanted = torch.distributions.kl_divergence(normal(mean, (log_var / 2).exp()), normal(0.0, 1.0))
    assert torch.allclose(gaussian_kl(mean, log_var, zero, zero), wanted)


def test_the_mean_over_an_empty_mask_is_zero():
    values = torch.arange(6.0).reshape(2, 3)
    assert masked_mean(values, values > 2) == 4
    assert masked_mean(values, values > 9) == 0


def penalty_by_loop(attention, error, perturbed, genes, squared, inverted, min_cells) -> float:
    """The published loss, one perturbed gene at a time."""
    labels = sorted({int(p) for p in perturbed if p >= 0})
    total = 0.0
    for label in labels:
        members = [c for c, p in enumerate(perturbed) if p == label]
        others = [c for c, p in enumerate(perturbed) if p not in (label, UNMAPPED)]
        if label not in genes or min(len(members), len(others)) < min_cells:
            continue
        column = list(genes).index(label)
        terms = []
        for t in range(len(genes)):
            m1, m2 = error[members, t].mean(), error[others, t].mean()
            ratio = m1 / m2 if inverted else m2 / m1
            difference = abs(attention[t, column] - 1 / (1 + np.exp(-(ratio - 1))))
            terms.append(difference**2 if squared else 0.5 * difference**2)  # below Huber's delta of 1
        total += np.mean(terms)
    return total / max(len(labels), 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    squared=st.booleans(),
    inverted=st.booleans(),
    min_cells=st.integers(1, 4),
)
def test_the_interventional_loss_is_the_published_loop(seed: int, squared: bool, inverted: bool, min_cells: int):
    rng = np.random.default_rng(seed)
    genes = np.sort(rng.choice(12, size=5, replace=False))
    perturbed = rng.choice([CONTROL, UNMAPPED, 0, 3, 4, 7, 11], size=30)
    error = rng.exponential(size=(30, 5))
    attention = rng.dirichlet(np.ones(5), size=5)
    ours = interventional_penalty(
        torch.from_numpy(attention),
        torch.from_numpy(error),
        torch.from_numpy(perturbed),
        torch.from_numpy(genes),
        "squared" if squared else "huber",
        "inverted" if inverted else "printed",
        min_cells,
    )
    assert float(ours) == pytest.approx(
        penalty_by_loop(attention, error, perturbed, genes, squared, inverted, min_cells), rel=1e-12
    )


def simple(perturbed: list[int], error: torch.Tensor | None = None) -> torch.Tensor:
    attention = torch.full((3, 3), 0.5, dtype=torch.float64, requires_grad=True)
    error = torch.ones(len(perturbed), 3, dtype=torch.float64) if error is None else error
    penalty = interventional_penalty(attention, error, torch.tensor(perturbed), torch.arange(3))
    if penalty.requires_grad:
        penalty.backward()
        assert torch.isfinite(attention.grad).all()
    return penalty.detach()


def test_observational_data_cost_nothing():
    assert simple([CONTROL, CONTROL, UNMAPPED]) == 0


def test_an_error_that_does_not_change_asks_for_half_attention():
    assert simple([CONTROL, 0, 1]) == 0


def test_errors_of_zero_are_no_change_and_give_no_nan():
    assert simple([CONTROL, 0, 1], torch.zeros(3, 3, dtype=torch.float64)) == 0


def test_a_perfect_prediction_in_perturbed_cells_is_finite():
    error = torch.ones(2, 3, dtype=torch.float64)
    error[1] = 0
    assert float(simple([CONTROL, 0], error)) == pytest.approx(0.5 * 0.5**2)  # drawn from 0.5 to sigmoid(inf) = 1


def test_cells_of_unmapped_labels_are_on_neither_side():
    error = torch.ones(4, 3, dtype=torch.float64)
    error[3] = 100.0
    assert simple([CONTROL, 0, 0, UNMAPPED], error) == 0


def test_only_the_regulators_column_is_drawn():
    attention = torch.full((3, 3), 0.1, dtype=torch.float64, requires_grad=True)
    perturbed = torch.tensor([CONTROL, CONTROL, 2, 2])
    interventional_penalty(attention, torch.ones(4, 3, dtype=torch.float64), perturbed, torch.arange(3)).backward()
    assert (attention.grad[:, :2] == 0).all()
    assert (attention.grad[:, 2] != 0).all()
