"""Products with (I - A)^-1, without the inverse: by an LU of I - A, or by iterations that an older LU makes few.

Rows are cells: `solve(z)` is z (I - A)^-1. Nothing here is differentiable and A is not copied: a factor is good for as
long as A stays as it is. Where I - A is singular, what is found is not finite.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}  # about what an LU leaves with a thousand genes
LIMIT = 8  # iterations of one solve
WORTHWHILE = 8  # iterations that the two solves of a training step need together, or up to it, with a recent guess


@runtime_checkable
class Factor(Protocol):
    """What stands for (I - A)^-1."""

    def solve(self, z: Float[Tensor, "*replicates cells genes"]) -> Float[Tensor, "*replicates cells genes"]:
        """`z` (I - A)^-1."""

    def solve_transposed(self, g: Float[Tensor, "*replicates cells genes"]) -> Float[Tensor, "*replicates cells genes"]:
        """`g` (I - A)^-T."""


def lu(a: Float[Tensor, "genes genes"]) -> Factor:
    """The LU of I - `a`: 2/3 genes^3 multiplications and additions, one matrix of memory."""
    return _LU(a)


class _LU:
    def __init__(self, a: Tensor):
        matrix = a.neg()
        matrix.diagonal().add_(1)
        # LAPACK wants columns together, which the transpose of a row-major matrix has: it is factorised where it is.
        self.matrix = matrix.T
        self.pivots, info = (torch.empty(0, dtype=torch.int32, device=a.device) for _ in range(2))
        torch.linalg.lu_factor_ex(self.matrix, out=(self.matrix, self.pivots, info))

    def solve(self, z: Float[Tensor, "cells genes"]) -> Float[Tensor, "cells genes"]:
        return torch.linalg.lu_solve(self.matrix, self.pivots, z.T).T

    def solve_transposed(self, g: Float[Tensor, "cells genes"]) -> Float[Tensor, "cells genes"]:
        return torch.linalg.lu_solve(self.matrix, self.pivots, g.T, adjoint=True).T


class Several:
    """The factors of several replicates, for rows of each.

    One after the other: PyTorch 2.13's LU of a batch of matrices has wrong pivots on a CPU with more than one thread.
    """

    def __init__(self, a: Float[Tensor, "replicates genes genes"]):
        self.factors = [lu(each) for each in a]

    def solve(self, z: Float[Tensor, "replicates cells genes"]) -> Float[Tensor, "replicates cells genes"]:
        """See `Factor`."""
        return torch.stack([factor.solve(rows) for factor, rows in zip(self.factors, z, strict=True)])

    def solve_transposed(self, g: Float[Tensor, "replicates cells genes"]) -> Float[Tensor, "replicates cells genes"]:
        """See `Factor`."""
        return torch.stack([factor.solve_transposed(rows) for factor, rows in zip(self.factors, g, strict=True)])


class Stale:
    """Factors of one A that training moves a little at a time; the LU of an older A serves as preconditioner.

    A solve ends when the residual of every row is below `TOLERANCE` of the row or of its solution, whichever is longer;
    where `LIMIT` iterations do not get there, the LU of the present A does, and is kept. There is also a new LU after
    an A that has cost more iterations than the mean A since the last LU, that LU counted in. Where an LU costs less
    than `WORTHWHILE` iterations, every A has its own. What is found depends on the A that came before, within the
    tolerance.
    """

    def __init__(self) -> None:
        self.guess: Factor | None = None
        self.served = 0  # As since that of the guess, it included and the present one not
        self.iterations = 0  # of all of these
        self.present = 0  # those of the present one

    def factor(self, a: Float[Tensor, "genes genes"]) -> Factor:
        """That of I - `a`, which is to resemble the one before: the same genes, another step."""
        self.served += 1
        self.iterations += self.present
        self.present = 0
        return _Guessed(a, self)

    def renew(self, a: Float[Tensor, "genes genes"]) -> Factor:
        """The LU of I - `a`, from now on the guess."""
        self.guess = None  # free it before there is another
        self.guess = lu(a)
        self.served, self.iterations, self.present = 0, 0, 0
        return self.guess

    def count(self, iterations: int, price: float) -> None:
        """Add to those of the present A; forget the guess where an LU, which costs `price` of them, is better."""
        self.present += iterations
        if self.present > (price + self.iterations) / max(self.served, 1):  # never more than the price
            self.guess = None


class _Guessed:
    def __init__(self, a: Tensor, stale: Stale):
        self.a, self.stale = a, stale
        self.exact: Factor | None = None

    def solve(self, z: Float[Tensor, "cells genes"]) -> Float[Tensor, "cells genes"]:
        return self._solve(z, lambda x: torch.addmm(x, x, self.a, alpha=-1), transposed=False)

    def solve_transposed(self, g: Float[Tensor, "cells genes"]) -> Float[Tensor, "cells genes"]:
        return self._solve(g, lambda x: torch.addmm(x, x, self.a.T, alpha=-1), transposed=True)

    def _solve(self, wanted: Tensor, product: Callable[[Tensor], Tensor], transposed: bool) -> Tensor:
        price, guess = lu_price(len(self.a), len(wanted)), self.stale.guess
        if self.exact is None and guess is not None and price >= WORTHWHILE:
            found = solved(wanted, product, guess.solve_transposed if transposed else guess.solve)
            self.stale.count(found.iterations, price)
            if found.converged:
                return found.rows
        self.exact = self.exact or self.stale.renew(self.a)
        return self.exact.solve_transposed(wanted) if transposed else self.exact.solve(wanted)


def lu_price(genes: int, cells: int) -> float:
    """Iterations of a solve that cost as much as an LU.

    The LU has 2/3 genes^3 operations, an iteration 4 cells genes^2 and, on a CPU, three quarters of the speed.
    """
    return genes / (8 * max(cells, 1))


class Solution(NamedTuple):
    """What the iterations arrived at."""

    rows: Float[Tensor, "cells genes"]
    iterations: int
    converged: bool


def solved(
    wanted: Float[Tensor, "cells genes"], product: Callable[[Tensor], Tensor], guess: Callable[[Tensor], Tensor]
) -> Solution:
    """The rows whose `product` is `wanted`, by generalised conjugate residuals; every row has its own.

    In exact arithmetic GMRES preconditioned from the right by `guess` (Eisenstat, Elman and Schultz, SIAM J. Numer.
    Anal. 20, 1983), which leaves the smallest residual that its directions allow.
    """
    rows, rest = torch.zeros_like(wanted), wanted
    directions: list[tuple[Tensor, Tensor]] = []  # and their products, orthonormal
    for iteration in range(1, LIMIT + 1):
        towards = guess(rest)
        moved = product(towards)
        for older_towards, older_moved in directions:
            share = _dots(moved, older_moved)
            towards = towards - share * older_towards
            moved = moved - share * older_moved
        length = _lengths(moved)
        scale = torch.where(length > 0, 1 / length, 0)
        directions.append((towards * scale, moved * scale))
        share = _dots(rest, directions[-1][1])
        rows = rows + share * directions[-1][0]
        rest = rest - share * directions[-1][1]
        if _is_small(rest, wanted, rows):
            rest = wanted - product(rows)  # what it really is, rounding included
            if _is_small(rest, wanted, rows):
                return Solution(rows, iteration, converged=True)
    return Solution(rows, LIMIT, converged=False)


def _is_small(residual: Tensor, wanted: Tensor, rows: Tensor) -> bool:
    reference = torch.maximum(_lengths(wanted), _lengths(rows))
    return bool((_lengths(residual) <= TOLERANCE[wanted.dtype] * reference).all())


def _dots(left: Tensor, right: Tensor) -> Float[Tensor, "cells 1"]:
    return torch.linalg.vecdot(left, right)[:, None]


def _lengths(rows: Tensor) -> Float[Tensor, "cells 1"]:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)
