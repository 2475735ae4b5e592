"""What a model may ask about the training cells before it starts; each answer costs at most one pass over them."""

from dataclasses import dataclass
from functools import cached_property

from grndist.data.moments import Sums, sums
from grndist.data.normalise import ExpressionConfig, Moments, moments
from grndist.data.perturbations import Perturbations
from grndist.data.view import View


@dataclass(frozen=True, eq=False)
class Facts:
    """Answers about the cells of a view, as `expression` transforms them."""

    view: View
    expression: ExpressionConfig
    products: bool = False  # whether second moments of all genes are summed, which takes memory of genes^2

    @property
    def n_genes(self) -> int:
        """Genes of the panel."""
        return self.view.n_genes

    @cached_property
    def moments(self) -> Moments:
        """Mean and standard deviation of every gene."""
        return moments(self.view, self.expression)

    def sums(self, perturbations: Perturbations) -> Sums:
        """Sums over the cells of every label and, with `products`, over products of genes: one pass, in one task.

        More tasks, on other machines, are `moments.sums` with workers and a scheduler; here each would hold sums of its
        own and wait for the same cores.
        """
        return sums(self.view, self.expression, perturbations, self.products)
