"""How much memory a training step takes: arithmetic on sizes, float32 throughout, for a refusal before the run starts.

What grows with genes^2 is counted; the numbers per entry of a batch are measured ones, and so is what the allocator
holds of tensors too small for memory of their own.
"""

from dataclasses import dataclass, fields, replace

from grndist.models.grn_vae.config import GRNVAEConfig
from grndist.optim import OptimizerConfig

NUMBER = 4  # bytes
PER_ENTRY = 45  # numbers per cell and gene of a step, of the fast form: the latent layer, tables, gradients
OF_CLASSIFIER = 15  # more of them, with one
OF_ONE_SAMPLE = 8  # ... for a divergence from the z that was drawn
PER_ENTRY_AND_WIDTH = 6  # of the plain form: what its networks keep for their gradients
SQUARES = {"fast": 1, "plain": 16}  # matrices genes x genes of a step at once: the factor; masks, products, the inverse
HEAP = 2**23  # numbers, 32 MiB: up to there a matrix leaves gaps of its size in glibc's heap; larger ones are mapped


@dataclass(frozen=True)
class StepSizes:
    """What a step is over."""

    genes: int  # of the panel
    regulators: int  # rows of the adjacency
    genes_per_step: int
    cells_per_step: int

    @property
    def regulators_per_step(self) -> int:
        """Regulators among the genes of a step, in the mean."""
        return -(-self.regulators * self.genes_per_step // self.genes)

    def with_genes(self, genes: int) -> "StepSizes":
        """Of a panel of fewer genes."""
        at_most = {"regulators": min(self.regulators, genes), "genes_per_step": min(self.genes_per_step, genes)}
        return replace(self, genes=genes, **at_most)


@dataclass(frozen=True)
class StepMemory:
    """Bytes at the peak of a step, by what they are for."""

    adjacency: int
    optimiser: int  # what it keeps of the adjacency, and works with
    gradient: int
    factors: int  # of I - A
    copies: int  # of the adjacency or of a block of it, and what they leave
    cells: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(getattr(self, field.name) for field in fields(self))


def bytes_of_step(config: GRNVAEConfig, optimizer: OptimizerConfig, sizes: StepSizes) -> StepMemory:
    """Memory of a step that trains everything. Networks and the standing cost of libraries are not in it."""
    whole, genes, inputs = sizes.regulators * sizes.genes, sizes.genes_per_step, sizes.regulators_per_step
    is_subset, entries = genes < sizes.genes, sizes.cells_per_step * genes
    block = inputs * genes
    core = inputs if config.form == "fast" else genes  # the plain form fills up the rows of the other genes
    copies = min(core**2, HEAP) + (block if is_subset else 0)
    if config.form == "fast" and inputs < genes:
        copies += inputs**2
    numbers = StepMemory(
        adjacency=whole,
        optimiser=(optimizer.moments + (0 if optimizer.by_blocks else 2)) * whole,
        gradient=block + (0 if optimizer.by_blocks or not is_subset else whole),
        factors=SQUARES[config.form] * core**2,
        copies=copies,
        cells=_per_entry(config) * entries,
    )
    return StepMemory(*(NUMBER * getattr(numbers, field.name) for field in fields(numbers)))


def _per_entry(config: GRNVAEConfig) -> int:
    """Numbers that a step works with, per cell and gene."""
    if config.form == "plain":
        return PER_ENTRY_AND_WIDTH * config.width
    classifier = OF_CLASSIFIER if config.classifier_weight > 0 else 0
    return PER_ENTRY + classifier + (OF_ONE_SAMPLE if config.kl == "one_sample" else 0)
