"""How parameters are updated: the settings."""

from typing import Literal

from pydantic import Field

from grndist.config import Config


class OptimizerConfig(Config):
    """How parameters are updated. Models have a group "networks" and may have a group "adjacency"."""

    optimizer: Literal["lion", "adamw", "adam", "rmsprop"]
    learning_rate: float = Field(gt=0)
    adjacency_learning_rate: float | None = Field(None, gt=0, description="null: the same as learning_rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, on all parameters (lion, adamw)")
    betas: tuple[float, float] = Field((0.9, 0.999), description="momentum and second moment (not rmsprop)")
    schedule: Literal["joint", "alternating"] = Field(
        "joint", description="alternating: network_epochs of the networks alone, then adjacency_epochs of the adjacency"
    )
    network_epochs: int = Field(1, gt=0, description="K1")
    adjacency_epochs: int = Field(1, gt=0, description="K2")
    rate_over_time: Literal["constant", "one_cycle"] = Field(
        "constant", description="one_cycle: up by a cosine to learning_rate, then down to nearly nothing at the end"
    )
    warmup: float = Field(0.1, gt=0, lt=1, description="share of the steps in which a one_cycle rate goes up")
    halve_at_steps: tuple[int, ...] = Field((), description="steps at which the learning rate is halved")
    halve_groups: Literal["all", "networks"] = "all"

    @property
    def moments(self) -> int:
        """Numbers that the optimiser keeps of every parameter."""
        return 1 if self.optimizer in {"rmsprop", "lion"} else 2

    @property
    def by_blocks(self) -> bool:
        """Whether a step with a block of a matrix leaves the rest of it alone."""
        return self.optimizer != "lion"
