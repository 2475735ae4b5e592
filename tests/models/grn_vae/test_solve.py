import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from grndist.models.grn_vae import solve
from grndist.models.grn_vae.solve import Factor, Several, Stale, lu, lu_price, solved
from tests.models.threads import in_threads

GENES, CELLS = 128, 2  # an LU costs 8 iterations


def adjacency(genes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """As training starts: I - A has an eigenvalue near 0 along the ones."""
    noise = torch.rand(genes, genes, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (1 / max(genes - 1, 1) + 1e-3 * noise).fill_diagonal_(0)


def rows(cells: int, genes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(cells, genes, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def minus(a: Tensor) -> Tensor:
    return torch.eye(len(a), dtype=a.dtype, device=a.device) - a


def assert_solves(factor: Factor, a: Tensor, wanted: Tensor, tolerance: float) -> None:
    matrix = minus(a)
    for ours, theirs in (
        (factor.solve(wanted), torch.linalg.solve(matrix, wanted, left=False)),
        (factor.solve_transposed(wanted), torch.linalg.solve(matrix.T, wanted, left=False)),
    ):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def residual(found: Tensor, matrix: Tensor, wanted: Tensor) -> float:
    """Of the worst row, relative to it or its solution."""
    reference = torch.maximum(wanted.norm(dim=1), found.norm(dim=1))
    return float(((wanted - found @ matrix).norm(dim=1) / reference).max())


@given(
    genes=st.integers(1, 40),
    cells=st.integers(0, 5),
    size=st.floats(0, 3),
    column_major=st.booleans(),
    seed=st.integers(0, 99),
)
def test_an_lu_solves(genes: int, cells: int, size: float, column_major: bool, seed: int):
    a = size * rows(genes, genes, seed)
    a = a.T if column_major else a
    before = a.clone()
    assume(torch.linalg.cond(minus(a)) < 1e3)
    assert_solves(lu(a), a, rows(cells, genes, seed + 1), 1e-10)
    assert torch.equal(a, before)


@settings(max_examples=30)
@given(cells=st.integers(1, CELLS), move=st.floats(0, 3e-4), shift=st.floats(-1e-4, 1e-4), seed=st.integers(0, 99))
def test_an_older_lu_solves(cells: int, move: float, shift: float, seed: int):
    stale, a = Stale(), adjacency(GENES, seed)
    for step in range(4):
        assume(torch.linalg.cond(minus(a), 1) < 1e3)
        assert_solves(stale.factor(a), a, rows(cells, GENES, step), 1e-9)  # 1e-12 times the condition number
        a = a + (shift + move * rows(GENES, GENES, seed + step).sign()).fill_diagonal_(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("move", [1e-6, 2e-5, 2e-4])
def test_the_residual_of_every_row_is_small(dtype: torch.dtype, move: float):
    old = adjacency(GENES, dtype=dtype)
    a = old + move * (rows(GENES, GENES, 1, dtype).sign() - 1).fill_diagonal_(0)
    wanted = rows(CELLS, GENES, 2, dtype) * torch.tensor([[1e-6], [1e6]], dtype=dtype)
    stale = Stale()
    stale.factor(old).solve(wanted)
    factor = stale.factor(a)
    assert residual(factor.solve(wanted), minus(a), wanted) <= solve.TOLERANCE[dtype]
    assert residual(factor.solve_transposed(wanted), minus(a).T, wanted) <= solve.TOLERANCE[dtype]
    assert stale.present > 0  # by iterations


def test_a_change_of_rank_one_takes_two_iterations_either_way():
    old, wanted = 0.05 * rows(GENES, GENES), rows(CELLS, GENES)  # far from symmetric
    stale = Stale()
    stale.renew(old)
    factor = stale.factor(old - 2e-3)  # the sparse loss moves all entries together
    factor.solve(wanted)
    assert stale.present == 2
    factor.solve_transposed(wanted)
    assert stale.present == 4


def test_a_useless_guess_is_replaced():
    a, wanted = adjacency(GENES), rows(CELLS, GENES)
    stale = Stale()
    stale.renew(rows(GENES, GENES, 1))
    found = stale.factor(a).solve(wanted)
    assert torch.equal(found, lu(a).solve(wanted))
    again = stale.factor(a).solve(wanted)
    assert torch.allclose(again, found, rtol=0, atol=1e-9 * float(found.norm()))
    assert stale.present == 1  # iteration: the guess is the inverse now


def test_a_guess_that_is_not_finite_is_replaced():
    a, wanted = adjacency(GENES), rows(CELLS, GENES)
    stale = Stale()
    stale.renew(torch.full_like(a, torch.nan))
    assert torch.equal(stale.factor(a).solve(wanted), lu(a).solve(wanted))


def test_an_adjacency_that_stays_gets_its_own_lu():
    stale, wanted = Stale(), rows(CELLS, GENES)
    stale.factor(adjacency(GENES)).solve(wanted)
    a = adjacency(GENES, seed=1)
    factor = stale.factor(a)
    iterated = factor.solve(wanted)
    for _ in range(int(lu_price(GENES, CELLS)) + 1):
        last = factor.solve(wanted)
    assert not torch.equal(iterated, lu(a).solve(wanted))
    assert torch.equal(last, lu(a).solve(wanted))


@pytest.mark.parametrize(
    ("present", "forgotten"),
    [
        ((4, 4, 6, 6), False),
        ((4, 4, 6, 7), True),  # than the mean: 26 / 4 with the LU, which costs 12
        ((12,), False),  # what the LU itself has cost
        ((13,), True),
    ],
)
def test_the_guess_is_forgotten_when_an_adjacency_costs_more(present: tuple[int, ...], forgotten: bool):
    stale = Stale()
    stale.renew(adjacency(GENES))
    for iterations in present:
        assert stale.guess is not None
        stale.factor(adjacency(GENES))
        stale.count(iterations - 1, price=12.0)
        stale.count(1, price=12.0)
    assert (stale.guess is None) == forgotten


def test_after_an_expensive_adjacency_the_next_has_its_own_lu():
    stale, wanted = Stale(), rows(CELLS, GENES)
    stale.factor(adjacency(GENES)).solve(wanted)
    a = adjacency(GENES) + 1e-3 * rows(GENES, GENES, 1)
    factor = stale.factor(a)
    for found, exact in (
        (factor.solve(wanted), lu(a).solve(wanted)),
        (factor.solve_transposed(wanted), lu(a).solve_transposed(wanted)),
    ):
        assert not torch.equal(found, exact)
    a = a + 1e-6
    assert torch.equal(stale.factor(a).solve(wanted), lu(a).solve(wanted))


def test_rounding_is_part_of_the_residual():
    basis = torch.linalg.qr(rows(GENES, GENES, dtype=torch.float32)).Q
    matrix, wanted = (basis * torch.logspace(0, 4, GENES)) @ basis.T, basis.T[:CELLS]
    found = solved(wanted, lambda x: x @ matrix, lu(minus(matrix)).solve)
    assert residual(found.rows, matrix, wanted) > solve.TOLERANCE[torch.float32]
    assert not found.converged


def test_few_genes_have_an_lu_each():
    stale, genes = Stale(), 40
    for seed in range(3):
        a, wanted = adjacency(genes, seed), rows(CELLS, genes, seed)
        assert torch.equal(stale.factor(a).solve(wanted), lu(a).solve(wanted))


def test_a_row_of_zeros_stays_one():
    stale, wanted = Stale(), rows(CELLS, GENES)
    wanted[0] = 0
    stale.factor(adjacency(GENES)).solve(wanted)
    a = adjacency(GENES, seed=1)
    found = stale.factor(a).solve(wanted)
    assert stale.present > 0
    assert torch.equal(found[0], torch.zeros(GENES, dtype=found.dtype))
    assert residual(found[1:], minus(a), wanted[1:]) <= 1e-12
    assert torch.equal(stale.factor(a).solve_transposed(0 * wanted), 0 * wanted)


@pytest.mark.parametrize("factor", [lu, Stale().factor])
def test_a_singular_matrix_gives_what_is_not_finite(factor):
    assert not torch.isfinite(factor(torch.eye(GENES)).solve(torch.ones(CELLS, GENES))).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_solves():
    stale = Stale()
    for seed in range(3):
        a = adjacency(GENES, seed).cuda()
        wanted = rows(CELLS, GENES, seed).cuda()
        assert_solves(lu(a), a, wanted, 1e-10)
        assert_solves(stale.factor(a), a, wanted, 1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_factors_of_replicates_are_each_its_own(threads: int):
    """At this size, PyTorch's LU of a batch has wrong pivots with two threads."""
    a = torch.stack([adjacency(200, seed) for seed in range(8)])
    z = torch.stack([rows(5, 200, seed) for seed in range(8)])
    factor: Factor = in_threads(threads, lambda: Several(a))
    for at, own in enumerate(a):
        inverse = torch.linalg.inv(minus(own))
        torch.testing.assert_close(factor.solve(z)[at], z[at] @ inverse, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(factor.solve_transposed(z)[at], z[at] @ inverse.T, rtol=1e-9, atol=1e-9)
