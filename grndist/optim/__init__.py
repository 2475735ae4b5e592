"""How parameters are updated: groups with rates and epochs of their own, and matrices of which a step uses a block."""

from grndist.optim.blocks import BlockParameter
from grndist.optim.config import OptimizerConfig
from grndist.optim.groups import Optimizers

__all__ = ["BlockParameter", "OptimizerConfig", "Optimizers"]
