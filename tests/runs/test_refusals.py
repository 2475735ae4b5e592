"""Memory that a run would need, and settings with which it would not."""

import re

import pytest

from grndist import models
from grndist.models import StepSizes
from grndist.runs import RunConfig
from grndist.runs.refusals import refuse_memory
from grndist.runs.workplace import RunError

GIB = 2**30


def config_of(kind: str = "grn_vae", optimizer: str = "adam", genes_per_step: int | None = None) -> RunConfig:
    training = {"steps": 1, "cells_per_step": 64, "genes_per_step": genes_per_step, "learning_rate": 1e-4}
    return RunConfig.model_validate(
        {
            "name": "a",
            "store": "s",
            "model": {"kind": kind},
            "expression": {},
            "training": training | {"optimizer": optimizer},
        }
    )


def refusal(config: RunConfig, n_genes: int, n_regulators: int, free: float) -> str:
    with pytest.raises(RunError) as refused:
        refuse_memory(config, sizes_of(config, n_genes, n_regulators), int(free * GIB))
    return str(refused.value)


def sizes_of(config: RunConfig, n_genes: int, n_regulators: int) -> StepSizes:
    return StepSizes(n_genes, n_regulators, config.training.genes_per_step or n_genes, 64)


def total(config: RunConfig, *sizes: int) -> float:
    found = models.bytes_of_step(config.model, config.training, StepSizes(*sizes, 64))
    assert found is not None
    return found.total / GIB


def test_what_is_needed_what_is_there_and_what_would_fit_are_said():
    said = refusal(config_of(), 20_000, 20_000, 5.0)
    assert "with 20,000 genes, 20,000 at once, needs 7.7 GiB (adjacency 1.5, optimiser 3.0" in said
    assert "5.0 GiB are free on training.device=cpu; what would fit: " in said
    (subset,) = re.findall(r"training\.genes_per_step=(\d+)", said)
    (listed,) = re.findall(r"genes\.regulators=FILE, a list of (\d+)", said)
    (kept,) = re.findall(r"genes\.highly_variable=(\d+)", said)
    for sizes in ((20_000, 20_000, int(subset)), (20_000, int(listed), 20_000), (int(kept), int(kept), int(kept))):
        assert 0.7 * 5.0 < total(config_of(), *sizes) <= 0.9 * 5.0  # a moment later there may be less
    assert "rmsprop" not in said  # with it a step needs 6.2


def test_a_lighter_optimiser_is_offered_where_it_fits_and_a_subset_where_one_does():
    said = refusal(config_of(), 20_000, 20_000, 7.0)
    assert "training.optimizer=rmsprop (6.2 GiB)" in said
    assert "training.genes_per_step" not in refusal(config_of(), 20_000, 20_000, 3.0)  # the optimiser alone has 3
    assert "fewer genes and cells" in refusal(config_of(), 2_000, 2_000, 0.0)


@pytest.mark.parametrize(("genes_per_step", "n_regulators"), [(4_000, 20_000), (None, 1_600)])
def test_what_fits_is_not_refused(genes_per_step: int | None, n_regulators: int):
    config = config_of(genes_per_step=genes_per_step)
    refuse_memory(config, sizes_of(config, 20_000, n_regulators), 6 * GIB)


def test_other_models_are_not_judged():
    config = config_of("catran", genes_per_step=100)
    refuse_memory(config, sizes_of(config, 20_000, 20_000), 0)
