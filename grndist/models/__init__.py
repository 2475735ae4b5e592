"""The models. A model is two methods: `forward(batch)` gives named loss terms, `adjacency(rows)` a block of rows.

This is the only module that knows which kinds there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from grndist.data.facts import Facts
from grndist.data.perturbations import perturbations_of
from grndist.data.stream.batch import Batch, MomentsBatch
from grndist.data.stream.batches import Batches
from grndist.data.view import View
from grndist.models import catran_d
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.catran import stacked as stacked_catran
from grndist.models.catran_d import CaTranD, CaTranDConfig
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig, memory
from grndist.models.grn_vae import stacked as stacked_grn_vae
from grndist.models.grn_vae.held_out import error_from_others
from grndist.models.grn_vae.memory import StepMemory, StepSizes
from grndist.optim import OptimizerConfig
from grndist.workers import ALONE, Workers

ModelConfig = Annotated[CaTranConfig | CaTranDConfig | GRNVAEConfig, Field(discriminator="kind")]
CONFIGS: dict[str, type[CaTranConfig] | type[CaTranDConfig] | type[GRNVAEConfig]] = {
    "catran": CaTranConfig,
    "catran_d": CaTranDConfig,
    "grn_vae": GRNVAEConfig,
}
AnyModel = CaTran | CaTranD | GRNVAE


@runtime_checkable
class Model(Protocol):
    """What training (the first method) and inference (the others) know of a model."""

    signed: ClassVar[bool]  # whether the sign of a weight tells activation from repression

    @property
    def n_regulators(self) -> int:
        """Rows of the adjacency: genes of the panel, then any perturbed genes that were not measured."""

    def forward(self, batch: Batch, workers: Workers = ALONE) -> dict[str, Tensor]:
        """Named loss terms, this worker's share of each; their sum is minimised."""

    def adjacency(self, rows: Int64[Tensor, " regulators"]) -> Float[Tensor, "regulators targets"]:
        """Rows of the network over the whole panel, 0 on the diagonal."""

    def embeddings(self) -> dict[str, Float[Tensor, "genes d"]]:
        """Vectors of the panel's genes, by what they are for; empty for a model without."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by group: "networks" and, where the model has one, "adjacency"; none if it is solved."""

    def touched_rows(self, genes: Int64[Tensor, " genes"]) -> list[tuple[nn.Parameter, Int64[Tensor, " rows"]]]:
        """Parameters of which a step with these genes has a gradient in some rows alone, and in which.

        What is taken by blocks (`optim.BlockParameter`) is not among them.
        """


@runtime_checkable
class StackedModels(Protocol):
    """Several models of one kind whose parameters are stacked, [models, ...]."""

    def losses(self, batches: Batches) -> dict[str, Float[Tensor, " models"]]:
        """The loss terms of every model's own batch, in training."""


@dataclass(frozen=True)
class Built:
    """A fresh model and what it learns from beside cells."""

    model: AnyModel
    moments: MomentsBatch | None = None  # of all cells, where it learns from them
    unmeasured: tuple[str, ...] = ()  # perturbed genes that regulate but are not in the panel


def can_use_moments(config: ModelConfig) -> bool:
    """Whether such a model can learn from second moments in place of cells."""
    return isinstance(config, CaTranDConfig) and config.own_perturbation == "zeroed"


def bytes_of_moments(config: ModelConfig, view: View) -> int:
    """Memory that learning from moments of these cells takes."""
    if not isinstance(config, CaTranDConfig):
        return 0
    known = perturbations_of(view, config.unmeasured)
    return catran_d.bytes_needed(config, known.n_genes, known.n_inputs, known.n_labels)


def bytes_of_step(config: ModelConfig, optimizer: OptimizerConfig, sizes: StepSizes) -> StepMemory | None:
    """Memory of a training step, where it grows with genes^2 and is known."""
    return memory.bytes_of_step(config, optimizer, sizes) if isinstance(config, GRNVAEConfig) else None


def is_solved(config: ModelConfig) -> bool:
    """Whether such a model is solved from moments rather than trained."""
    return isinstance(config, CaTranDConfig) and config.form == "full"


def can_share(config: ModelConfig) -> bool:
    """Whether several workers can train such a model together, each with cells of its own."""
    return not is_solved(config) and (isinstance(config, CaTranDConfig) or config.form == "fast")


def is_undirected(config: ModelConfig) -> bool:
    """Whether both directions of a pair are one edge: the adjacency is symmetric, and half of it says everything."""
    return isinstance(config, CaTranConfig) and config.edges == "undirected"


def resolved(config: ModelConfig, from_moments: bool) -> ModelConfig:
    """The settings with every choice made that depends on what the model learns from."""
    if isinstance(config, CaTranDConfig) and config.form == "auto":
        return config.model_copy(update={"form": "full" if from_moments else "bilinear"})
    return config


def criterion(config: ModelConfig) -> tuple[str, ...]:
    """Names of the loss terms that say how well cells are predicted; penalties and priors are none of them."""
    if isinstance(config, CaTranConfig):
        return ("hidden", "visible")
    return ("prediction",) if isinstance(config, CaTranDConfig) else ("reconstruction",)


def may_stop_from(config: ModelConfig) -> int:
    """The first epoch whose loss on held-out cells may end the training: before it, not all terms are trained."""
    return config.sparse_delay if isinstance(config, GRNVAEConfig) else 0


def pilot_epochs(config: ModelConfig) -> int:
    """Length of the pilots that are to choose the augmentation; 0: there is nothing to choose."""
    return config.pilot_epochs if isinstance(config, GRNVAEConfig) and config.augmentation == "auto" else 0


def with_augmentation(config: ModelConfig, rate: float) -> ModelConfig:
    """The settings with the augmentation that was chosen; as they are where a model knows none."""
    return config.with_rate(rate) if isinstance(config, GRNVAEConfig) else config


def held_out_error(model: AnyModel, batches: Iterable[Batch]) -> float:
    """Mean squared error of held-out cells, every non-zero entry predicted from its cell's other genes.

    Raises:
        TypeError: a model that has no structural equations to predict by.
    """
    if not isinstance(model, GRNVAE):
        raise TypeError(f"{type(model).__name__} predicts no entry from its cell's others")
    return error_from_others(model, batches)


def described(config: ModelConfig) -> str:
    """The model in a few words, its form where that was chosen."""
    return f"{config.kind} ({config.form})" if isinstance(config, CaTranDConfig) else config.kind


def not_stackable(configs: Sequence[ModelConfig]) -> str:
    """Why models with these settings, of one kind, cannot be stacked, in words; empty where they can."""
    vaes = [config for config in configs if isinstance(config, GRNVAEConfig)]
    catrans = [config for config in configs if isinstance(config, CaTranConfig)]
    if len(vaes) == len(configs):
        return stacked_grn_vae.why_not_stacked(vaes)
    if len(catrans) == len(configs):
        return stacked_catran.why_not_stacked(catrans)
    return f"model.kind={configs[0].kind} has no stacked form"


def stacking_pays(config: ModelConfig, replicates: int, n_genes: int, cells_per_step: int) -> bool:
    """Whether so many such models, stacked, are trained more than 1.3 times as fast as one by one on a CPU.

    Of CaTran, loops over cells x genes x d take most of a step, and each replicate has its own: 1.2 was found.
    """
    return isinstance(config, GRNVAEConfig) and stacked_grn_vae.pays(replicates, n_genes, cells_per_step)


def stacked(models: Sequence[Any], parameters: Mapping[str, Tensor]) -> StackedModels:
    """Models that can be stacked, in training; `parameters` are theirs, [models, ...], by a model's names.

    Raises:
        TypeError: there is no such form of them.
    """
    if all(isinstance(model, GRNVAE) for model in models):
        return stacked_grn_vae.StackedGRNVAE(models, parameters)
    if all(isinstance(model, CaTran) for model in models):
        return stacked_catran.StackedCaTran(models, parameters)
    raise TypeError(f"{type(models[0]).__name__} has no stacked form")


def build(config: ModelConfig, facts: Facts, seed: int) -> Built:
    """A fresh model for these cells; it asks for no more facts than it needs."""
    if isinstance(config, CaTranConfig):
        return Built(CaTran(config, facts.n_genes, seed))
    if isinstance(config, CaTranDConfig):
        built = catran_d.from_facts(config, facts, seed)
        return Built(built.model, built.batch, built.unmeasured)
    model = GRNVAE(config, facts.n_genes, seed, facts.regulators)
    model.standardise_with(*facts.moments_over(config.zscore))
    return Built(model)


def load(config: ModelConfig, n_genes: int, weights: Mapping[str, Tensor]) -> AnyModel:
    """A trained model from its state dict, ready to be asked for its network.

    Raises:
        RuntimeError: the weights are not of such a model.
    """
    model: AnyModel
    if isinstance(config, CaTranConfig):
        model = CaTran(config, n_genes)
    elif isinstance(config, CaTranDConfig):
        model = CaTranD(config, catran_d.Sizes.of(weights))
    else:
        model = GRNVAE(config, n_genes, regulators=weights.get("regulators"))
    model.load_state_dict(dict(weights))
    return model.eval()
