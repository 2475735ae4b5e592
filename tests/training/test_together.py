"""Models trained together against the same models trained one by one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grndist.data.stream.batch import Batch
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.optim import OptimizerConfig, Optimizers
from grndist.training.loop import State, TrainingError, train
from grndist.training.together import Member, train_together
from tests.models.batches import batch_of

GENES, CELLS, STEPS, STEPS_OF_EPOCH = 30, 40, 6, 2
RMSPROP = {"optimizer": "rmsprop", "learning_rate": 1e-3, "adjacency_learning_rate": 2e-4, "schedule": "alternating"}
ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "betas": (0.9, 0.9), "halve_at_steps": (5,)}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grn_vae": ({"sparse_delay": 2}, RMSPROP),
    "dazzle": ({"classifier_weight": 0.5, "augment_adjacency_epochs": True, "reconstruction_target": "clean"}, ADAM),
    "deepsem_without_its_prior": ({"kl": "one_sample", "loss_entries": "all", "augmentation": 0.0}, RMSPROP),
    "clipped": ({"clip": 1.5, "augmentation_entries": "below_mean", "augmentation_rescale": True}, ADAM),
    "adamw": ({"sparse_delay": 0}, ADAM | {"optimizer": "adamw", "weight_decay": 0.1}),
    "lion": ({"sparse_delay": 0}, ADAM | {"optimizer": "lion", "weight_decay": 0.1}),
}
CATRAN = {"kind": "catran", "embedding": 6, "embedding_std": 0.3, "linear_std": 0.3}
CATRANS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": (CATRAN | {"interventional_weight": 5.0}, ADAM),
    "submission": (
        CATRAN | {
            "projection": False, "attention": "sigmoid", "input_layers": 1, "aggregations": 3, "output_layers": 1,
            "reconstruction_loss": "squared", "interventional_loss": "squared", "interventional_ratio": "inverted",
            "interventional_gradient": False, "interventional_min_cells": 4,
        },
        ADAM,
    ),
    "added": (CATRAN | {"expression_input": "add", "interventional_weight": 0.0, "corruption": "zero"}, ADAM),
}  # fmt: skip
# Differences that trials may have: other weights, rates, shares of zeros. Of each case, only those that it has.
TRIALS: list[dict[str, Any]] = [
    {},
    {"alpha": 20.0, "beta": 0.5, "hidden_weight": 0.5},
    {"augmentation": 0.3, "classifier_weight": 0.2, "interventional_weight": 2.0},
]
RATES: list[dict[str, Any]] = [{}, {"learning_rate": 2e-3}, {"halve_at_steps": (2, 3)}]
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}
REGULATORS = [0, 3, 4, 10, 11, 20, 29]


def state_of(case: str, number: int, dtype: torch.dtype, regulators: list[int] | None = None) -> State:
    """A replicate with its own seed and settings before its first step."""
    settings, optimizer = (CASES | CATRANS)[case]
    kind = CaTranConfig if case in CATRANS else GRNVAEConfig
    own = {name: value for name, value in TRIALS[number].items() if _has(kind, settings, name)}
    if case in CATRANS:
        model: CaTran | GRNVAE = CaTran(CaTranConfig.model_validate(settings | own), GENES, seed=number)
    else:
        tolerance = {"table_tolerance": 0} if dtype == torch.float64 else {}  # a table's error is up to 1e-6
        config = GRNVAEConfig.model_validate({"width": 12} | settings | tolerance | own)
        model = GRNVAE(config, GENES, number, None if regulators is None else torch.tensor(regulators))
        rng = np.random.default_rng(number)
        spread = np.where(np.arange(GENES) == 5, 0, rng.uniform(0.5, 1, GENES))
        model.standardise_with(rng.uniform(0.3, 0.6, GENES), spread)
    model.to(dtype)
    return State(model, Optimizers(OptimizerConfig(**(optimizer | RATES[number])), model.parameter_groups(), STEPS))


def _has(kind: type[CaTranConfig] | type[GRNVAEConfig], settings: dict[str, Any], name: str) -> bool:
    """Whether a setting means something to a case."""
    return name in kind.model_fields and bool(settings.get(name, kind.model_fields[name].default))


def batch_at(number: int, dtype: torch.dtype, step: int) -> Batch:
    """What a replicate sees: cells of its own, fewer in the last batch of an epoch."""
    epoch, within = divmod(step, STEPS_OF_EPOCH)
    n_cells = CELLS - 7 * (within == STEPS_OF_EPOCH - 1)
    return batch_of(n_cells, list(range(GENES)), epoch=epoch, step=within, dtype=dtype, seed=number)


class Followed:
    """A training of one replicate, and what it was told of every step."""

    def __init__(self, state: State, number: int, dtype: torch.dtype):
        self.state, self.number, self.dtype = state, number, dtype
        self.losses: list[dict[str, float]] = []
        self.steps: list[int] = []
        self.errors: list[TrainingError] = []
        self.last = STEPS  # where it is told to stop

    def batch_at(self, step: int) -> Batch:
        return batch_at(self.number, self.dtype, step)

    def on_step(self, state: State, batch: Batch, losses: dict[str, float]) -> bool:
        self.losses.append(losses)
        self.steps.append(state.step)
        return state.step == self.last

    def member(self) -> Member:
        return Member(self.state, self.batch_at, self.on_step, self.errors.append)

    def alone(self) -> "Followed":
        train(self.state, self.batch_at, STEPS, self.on_step)
        return self


def replicates(case: str, dtype: torch.dtype, **given: Any) -> list[Followed]:
    return [Followed(state_of(case, number, dtype, **given), number, dtype) for number in range(len(TRIALS))]


def agree(found: Followed, wanted: Followed) -> None:
    """Whether the losses, the network, the parameters and the optimisers' states differ by rounding alone."""
    limit = LIMITS[found.dtype]
    assert found.steps == wanted.steps
    assert [losses.keys() for losses in found.losses] == [losses.keys() for losses in wanted.losses]
    ours, theirs = ([value for step in one.losses for value in step.values()] for one in (found, wanted))
    np.testing.assert_allclose(ours, theirs, rtol=limit, atol=limit)
    rows = torch.arange(GENES)
    torch.testing.assert_close(
        found.state.model.adjacency(rows), wanted.state.model.adjacency(rows), rtol=limit, atol=limit
    )
    if isinstance(found.state.model, CaTran) and found.dtype == torch.float32:
        return  # some of its gradients are exactly 0, and Adam amplifies their rounding
    same_tensors(found.state.model.state_dict(), wanted.state.model.state_dict(), limit)
    theirs_by_group = wanted.state.optimizers.state_dict()
    for group, ours_of_group in found.state.optimizers.state_dict().items():
        assert ours_of_group["param_groups"] == theirs_by_group[group]["param_groups"]
        for parameter, state in theirs_by_group[group]["state"].items():
            assert type(ours_of_group["state"][parameter].get("step")) is type(state.get("step"))
            same_tensors(ours_of_group["state"][parameter], state, limit)


def same_tensors(found: dict[str, Any], wanted: dict[str, Any], limit: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(torch.as_tensor(found[name]), torch.as_tensor(value), rtol=limit, atol=limit)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float64) for case in CASES | CATRANS),
        *((case, torch.float32) for case in ("grn_vae", "dazzle", "paper")),
    ],
)
def test_replicates_trained_together_are_those_trained_one_by_one(case: str, dtype: torch.dtype):
    found = replicates(case, dtype)
    train_together([one.member() for one in found], STEPS)
    for ours, theirs in zip(found, replicates(case, dtype), strict=True):
        agree(ours, theirs.alone())
    rows = torch.arange(GENES)
    assert not torch.equal(found[0].state.model.adjacency(rows), found[1].state.model.adjacency(rows))


@pytest.mark.parametrize("case", ["grn_vae", "dazzle"])
def test_where_some_genes_may_regulate(case: str):
    found = replicates(case, torch.float64, regulators=REGULATORS)
    train_together([one.member() for one in found], STEPS)
    for ours, theirs in zip(found, replicates(case, torch.float64, regulators=REGULATORS), strict=True):
        agree(ours, theirs.alone())


@pytest.mark.parametrize("case", ["grn_vae", "dazzle"])
@pytest.mark.parametrize("first", [1, 3])
def test_training_can_go_from_one_way_to_the_other(case: str, first: int):
    found = replicates(case, torch.float64)
    train(found[0].state, found[0].batch_at, first, found[0].on_step)
    train_together([one.member() for one in found[1:]], first)
    train_together([one.member() for one in found], STEPS - 2)
    for ours, theirs in zip(found, replicates(case, torch.float64), strict=True):
        agree(ours.alone(), theirs.alone())


@pytest.mark.parametrize("last", [3])
def test_one_that_stops_leaves_the_others_as_they_are(last: int):
    found, wanted = replicates("dazzle", torch.float64), replicates("dazzle", torch.float64)
    found[1].last = wanted[1].last = last
    train_together([one.member() for one in found], STEPS)
    for ours, theirs in zip(found, wanted, strict=True):
        agree(ours, theirs.alone())
    assert [one.state.step for one in found] == [STEPS, last, STEPS]


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_a_loss_that_is_not_finite_stops_that_one_alone(value: float):
    found, wanted = replicates("dazzle", torch.float32), replicates("dazzle", torch.float32)

    def poisoned(step: int) -> Batch:
        batch = batch_at(1, torch.float32, step)
        return replace(batch, expression=batch.expression * value) if step == 2 else batch

    for one in (found[1], wanted[1]):
        one.batch_at = poisoned  # type: ignore[method-assign]
    train_together([one.member() for one in found], STEPS)
    with pytest.raises(TrainingError) as error:
        wanted[1].alone()
    assert str(found[1].errors[0]).startswith("the loss is")
    assert f"at step {found[1].state.step} (" in str(found[1].errors[0])
    assert f"at step {found[1].state.step} (" in str(error.value)
    for ours, theirs in zip(found, wanted, strict=True):
        agree(ours, theirs if theirs is wanted[1] else theirs.alone())
    assert [len(one.errors) for one in found] == [0, 1, 0]


def test_one_is_enough():
    (ours, *_), (theirs, *_) = replicates("grn_vae", torch.float64), replicates("grn_vae", torch.float64)
    train_together([ours.member()], STEPS)
    agree(ours, theirs.alone())


def test_models_stay_their_own_while_they_share_memory():
    """What is validated, saved or asked for a network in the middle of the training is up to date."""
    found = replicates("grn_vae", torch.float64)
    wanted = replicates("grn_vae", torch.float64)
    held_out = batch_at(7, torch.float64, 0)

    def looks_of(one: Followed) -> list[Tensor]:
        looks: list[Tensor] = []
        told = one.on_step

        def look(state: State, batch: Batch, losses: dict[str, float]) -> bool:
            with torch.no_grad():
                looks.append(state.model.eval()(held_out)["reconstruction"])
            state.model.train()
            return told(state, batch, losses)

        one.on_step = look  # type: ignore[method-assign]
        return looks

    ours, theirs = [looks_of(one) for one in found], [looks_of(one) for one in wanted]
    train_together([one.member() for one in found], STEPS)
    for one in wanted:
        one.alone()
    for left, right in zip(ours, theirs, strict=True):
        assert len(set(map(float, right))) > STEPS // 2
        torch.testing.assert_close(torch.stack(left), torch.stack(right), rtol=1e-9, atol=1e-12)
