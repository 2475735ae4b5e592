from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.models.catran.corruption import corrupt
from tests.models.batches import batch_of
from tests.models.threads import in_threads


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.95), counts=st.lists(st.integers(1, 9), min_size=1, max_size=3), n_genes=st.integers(2, 12))
def test_exactly_the_given_share_is_hidden_and_values_are_permuted_within_a_stream(
    share: float, counts: list[int], n_genes: int
):
    batch = batch_of(sum(counts), list(range(n_genes)), counts=counts)
    hidden, corrupted = corrupt(batch, share, "permute")
    assert (hidden.sum(1) == int(share * n_genes)).all()
    assert torch.equal(corrupted[~hidden], batch.expression[~hidden])
    first = 0
    for size in counts:
        rows = slice(first, first + size)
        before, after = batch.expression[rows][hidden[rows]], corrupted[rows][hidden[rows]]
        assert torch.equal(before.sort().values, after.sort().values)
        first += size


def test_hidden_values_cross_cells_and_genes():
    batch = batch_of(200, list(range(10)))
    hidden, corrupted = corrupt(batch, 0.8, "permute")
    same = (corrupted == batch.expression)[hidden & batch.is_nonzero].float().mean()
    assert same < 0.2


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_every_pair_of_genes_is_hidden_together_as_often_as_any_other(share: float):
    hidden, _ = corrupt(batch_of(6000, list(range(10))), share, "zero")
    together = hidden.double().T @ hidden.double() / len(hidden)
    k = int(share * 10)
    wanted = torch.full((10, 10), k * (k - 1) / 90, dtype=torch.float64).fill_diagonal_(k / 10)
    assert torch.allclose(together, wanted, atol=0.03)  # 4.6 standard deviations


def test_a_hidden_value_may_come_from_anywhere_in_the_share():
    """Every place is equally likely: the mean of what arrives does not depend on where it was taken from."""
    batch = batch_of(400, list(range(20)))
    batch.expression[:] = torch.arange(8000.0).reshape(400, 20)
    hidden, corrupted = corrupt(batch, 0.5, "permute")
    moved = corrupted[hidden] != batch.expression[hidden]
    assert moved.float().mean() > 0.99
    halves = corrupted[:200][hidden[:200]], corrupted[200:][hidden[200:]]
    for half in halves:
        assert half.mean().item() == pytest.approx(4000, abs=250)  # 4.8 standard deviations
        assert half.std().item() == pytest.approx(8000 / 12**0.5, rel=0.05)


def test_within_a_gene_values_stay_in_their_gene_and_stream():
    batch = batch_of(90, list(range(70)), counts=[50, 40])
    hidden, corrupted = corrupt(batch, 0.8, "permute_within_gene")
    assert torch.equal(corrupted[~hidden], batch.expression[~hidden])
    for rows in (slice(0, 50), slice(50, 90)):
        for gene in range(70):
            before, after = (x[rows, gene][hidden[rows, gene]].sort().values for x in (batch.expression, corrupted))
            assert torch.equal(before, after)
    assert (corrupted == batch.expression)[hidden & batch.is_nonzero].float().mean() < 0.1


def test_zeroed_values_are_zero_and_the_others_are_not_touched():
    batch = batch_of(30, list(range(10)))
    hidden, corrupted = corrupt(batch, 0.8, "zero")
    assert torch.equal(corrupted, batch.expression * ~hidden)


KINDS = ["permute", "permute_within_gene", "zero"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_streams_share_is_corrupted_alike_wherever_it_is(kind: str):
    """The share of logical stream 1 alone, as another worker would hold it, gives the same values."""
    both = batch_of(700, list(range(70)), counts=[300, 400])
    alone = replace(
        both,
        expression=both.expression[300:],
        perturbed=both.perturbed[300:],
        labels=both.labels[300:],
        shares=((1, 400),),
        stored_nonzero=None,
    )
    for whole, part in zip(corrupt(both, 0.6, kind), corrupt(alone, 0.6, kind), strict=True):
        assert torch.equal(whole[300:], part)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_does_not_matter(kind: str):
    batch = batch_of(700, list(range(200)))
    one, three = (in_threads(threads, lambda: corrupt(batch, 0.8, kind)) for threads in (1, 3))
    assert all(torch.equal(first, second) for first, second in zip(one, three, strict=True))


def test_steps_differ():
    first, second = (corrupt(replace(batch_of(30, list(range(10))), step=step), 0.5, "zero")[0] for step in (0, 1))
    assert not torch.equal(first, second)
