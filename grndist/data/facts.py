"""What a model may ask about the training cells before it starts; each answer costs at most one pass over them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from grndist.data.moments import Sums, sums
from grndist.data.normalise import ExpressionConfig, Moments, moments
from grndist.data.perturbations import Perturbations
from grndist.data.view import View

Pass = Callable[[View, ExpressionConfig, Perturbations, bool], Sums]  # the last: with products


def in_one_task(view: View, expression: ExpressionConfig, perturbations: Perturbations, products: bool) -> Sums:
    """The sums in this process: more tasks would each hold sums of their own and wait for the same cores."""
    return sums(view, expression, perturbations, products)


@dataclass(frozen=True, eq=False)
class Facts:
    """Answers about the cells of a view, as `expression` transforms them."""

    view: View
    expression: ExpressionConfig
    products: bool = False  # whether second moments of all genes are summed, which takes memory of genes^2
    pass_over: Pass = in_one_task  # how sums over all cells are made

    @property
    def n_genes(self) -> int:
        """Genes of the panel."""
        return self.view.n_genes

    @property
    def regulators(self) -> Int64[Tensor, " regulators"] | None:
        """Panel columns of the genes that may regulate, ascending; None: all."""
        chosen = self.view.is_regulator
        return None if chosen is None else torch.from_numpy(chosen).nonzero()[:, 0]

    def moments_over(self, cells: Literal["all", "nonzero"]) -> Moments:
        """Mean and standard deviation of every gene, over all cells or over those in which it is not zero."""
        return moments(self.view, self.expression.model_copy(update={"zscore": cells}))

    def sums(self, perturbations: Perturbations) -> Sums:
        """Sums over the cells of every label and, with `products`, over products of genes: one pass."""
        return self.pass_over(self.view, self.expression, perturbations, self.products)
