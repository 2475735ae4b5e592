"""Lion over matrices of which a step may use a block: to it, the entries outside have a gradient of 0."""

import torch
from lion_pytorch import Lion

from grndist.optim.blocks import put_entries, taken_block


class DenseLion(Lion):
    """lion-pytorch's Lion; a block's gradient is spread over a matrix of the parameter's size."""

    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient, or a block that has one."""
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            block = taken_block(parameter)
            if block is not None and block.values.grad is not None:
                parameter.grad = torch.zeros_like(parameter)
                put_entries(parameter.grad, block.rows, block.columns, block.values.grad)
        super().step()
