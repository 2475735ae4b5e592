import copy

import pytest
import torch
from lion_pytorch import Lion
from torch import nn

from grndist.optim import OptimizerConfig, Optimizers


def quadratic(config: OptimizerConfig, steps: int, per_epoch: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Parameters of both groups after every step of minimising their squares."""
    a, b = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    optimizers = Optimizers(config, {"networks": [a], "adjacency": [b]})
    networks, adjacency = [], []
    for step in range(steps):
        optimizers.prepare(step // per_epoch, step)
        loss = a.square().sum() + b.square().sum()
        loss.backward()
        optimizers.step(step // per_epoch)
        networks.append(a.detach().clone())
        adjacency.append(b.detach().clone())
    return networks, adjacency


def test_alternating_epochs_freeze_the_other_group_and_its_momentum():
    config = OptimizerConfig(
        optimizer="adam", learning_rate=0.1, schedule="alternating", network_epochs=1, adjacency_epochs=2
    )
    networks, adjacency = quadratic(config, steps=12)
    alone, _ = quadratic(config.model_copy(update={"schedule": "joint"}), steps=6)
    assert torch.equal(networks[2], networks[8])  # epochs 1 and 2 train the adjacency
    assert torch.equal(adjacency[2], torch.tensor([1.0, -2.0]))
    assert not torch.equal(adjacency[8], adjacency[2])
    assert torch.equal(networks[11], alone[5])  # the pause has left no trace in the moments


def test_groups_have_their_own_rates_and_halvings():
    config = OptimizerConfig(
        optimizer="rmsprop",
        learning_rate=1.0,
        adjacency_learning_rate=0.1,
        halve_at_steps=(2, 4),
        halve_groups="networks",
    )
    optimizers = Optimizers(
        config, {"networks": [nn.Parameter(torch.ones(1))], "adjacency": [nn.Parameter(torch.ones(1))]}
    )
    rates = []
    for step in range(5):
        optimizers.prepare(0, step)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers.optimizers.values()])
    assert rates == [[1, 0.1], [1, 0.1], [0.5, 0.1], [0.5, 0.1], [0.25, 0.1]]


@pytest.mark.parametrize("names", [[], ["networks"]])
def test_alternating_is_for_models_with_two_groups(names: list[str]):
    config = OptimizerConfig(optimizer="adam", learning_rate=0.1, schedule="alternating")
    optimizers = Optimizers(config, {name: [nn.Parameter(torch.ones(1))] for name in names})
    for step in range(2):  # an epoch of each group, if there were two
        optimizers.prepare(step, step)
        for (parameter,) in optimizers.groups.values():
            parameter.square().backward()
        before = [float(parameter.detach()) for (parameter,) in optimizers.groups.values()]
        optimizers.step(step)
        assert all(float(own[0].detach()) < old for own, old in zip(optimizers.groups.values(), before, strict=True))


def test_one_cycle_needs_the_length_of_the_training():
    config = OptimizerConfig(optimizer="adam", learning_rate=0.1, rate_over_time="one_cycle")
    groups = {"networks": [nn.Parameter(torch.ones(1))]}
    with pytest.raises(ValueError, match="over all steps of the training, and steps is 0"):
        Optimizers(config, groups)
    optimizers = Optimizers(config, groups, steps=1)
    optimizers.prepare(0, 0)
    assert optimizers.optimizers["networks"].param_groups[0]["lr"] == pytest.approx(0.1)


def test_lion_is_the_librarys_with_decoupled_decay():
    config = OptimizerConfig(optimizer="lion", learning_rate=0.01, weight_decay=0.05, betas=(0.9, 0.99))
    ours, _ = quadratic(config, steps=5)
    theirs = nn.Parameter(torch.tensor([1.0, -2.0]))
    lion = Lion([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.05)
    for _ in range(5):
        lion.zero_grad()
        theirs.square().sum().backward()
        lion.step()
    assert torch.equal(ours[-1], theirs.detach())


@pytest.mark.parametrize("name", ["lion", "adamw", "adam", "rmsprop"])
def test_state_goes_round(name: str):
    config = OptimizerConfig(optimizer=name, learning_rate=0.01)  # type: ignore[arg-type]
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    first = Optimizers(config, {"networks": [parameter]})
    for step in range(3):
        first.prepare(0, step)
        parameter.square().sum().backward()
        first.step(0)
    second = Optimizers(config, {"networks": [nn.Parameter(parameter.detach().clone())]})
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizers in (first, second):
        optimizers.prepare(0, 3)
        (own,) = optimizers.groups["networks"]
        own.square().sum().backward()
        optimizers.step(0)
    assert torch.equal(first.groups["networks"][0], second.groups["networks"][0])
