"""`model.augmentation: auto`: the rule, what a run keeps of the choice, and what a stop does to it."""

import json
import logging
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from grndist import models
from grndist.config import ConfigError
from grndist.data.ingest.build import write_store
from grndist.errors import UserError
from grndist.inference import edges_of_run
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.runs import Interrupted, RunConfig, RunSummary, load_run, train_run
from grndist.runs.augmentation import RATES, SEEDS, Measures, agreement, chosen
from grndist.training import checkpoint
from tests.conftest import genes, small_counts

PILOTS = "model.augmentation=auto: 18 pilots"
TREE = {
    "preset": "dazzle",
    "name": "small",
    "model": {"augmentation": "auto", "pilot_epochs": 1, "table_tolerance": 0, "width": 4},
    "training": {"epochs": 4, "cells_per_step": 300, "checkpoint_every": 3, "threads": 1},
    "tracking": {"kind": "none"},
}


def settings(folder: Path, *overrides: str) -> RunConfig:
    return load_run(folder / "small.yaml", list(overrides))


def weights(run: Path) -> dict[str, np.ndarray]:
    found = checkpoint.load_weights(checkpoint.latest(run / "checkpoints"))
    return {name: value.numpy() for name, value in found.items()}


def same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(value, second[name]) for name, value in first.items())


def config_of(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """A folder with a finished run, and what it said."""
    folder = tmp_path_factory.mktemp("auto")
    counts, obs = small_counts()
    write_store(folder / "small.zarr", counts, obs, genes(12), "counts", {})
    tree = TREE | {"store": str(folder / "small.zarr"), "runs": str(folder / "runs")}
    (folder / "small.yaml").write_text(yaml.safe_dump(tree))
    return folder, train_run(settings(folder))


@pytest.fixture
def folder(whole: tuple[Path, RunSummary], tmp_path: Path) -> Path:
    """A copy of the folder, whose run file means the copy's runs."""
    copy = Path(shutil.copytree(whole[0], tmp_path / "copy"))
    tree = TREE | {"store": str(copy / "small.zarr"), "runs": str(copy / "runs")}
    (copy / "small.yaml").write_text(yaml.safe_dump(tree))
    return copy


# --- the rule ---


@st.composite
def measures(draw: st.DrawFn) -> list[Measures]:
    share, error = st.floats(0, 1), st.floats(0, 10)
    return [Measures(rate, draw(share), draw(error), draw(error)) for rate in draw(st.permutations(RATES))]


@given(measures())
def test_the_rate_predicts_best_of_those_that_reconstruct_nearly_as_well_as_any(found: list[Measures]):
    own = next(one for one in found if one.rate == chosen(found))
    least = min(one.reconstruction for one in found)
    assert own.reconstruction <= 1.05 * least
    for other in found:
        assert other.reconstruction > 1.05 * least or (own.error, own.rate) <= (other.error, other.rate)


@given(measures(), st.randoms(use_true_random=False))
def test_the_rule_does_not_depend_on_the_order(found: list[Measures], random):
    shuffled = found.copy()
    random.shuffle(shuffled)
    assert chosen(shuffled) == chosen(found)


def test_agreement_is_the_mean_jaccard_index_of_two_seeds():
    one, two, three = np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]), np.array([4, 3, 2, 1])
    assert agreement([one, two, three]) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert agreement([one[:0], one[:0]]) == 0


# --- a run ---


def test_a_run_keeps_the_rate_as_a_number_and_what_the_pilots_showed(whole: tuple[Path, RunSummary]):
    run, summary = Path(whole[1].folder), whole[1]
    about = json.loads((run / "augmentation.json").read_text())
    found = [Measures(**measured) for measured in about["pilots"]]
    assert [one.rate for one in found] == list(RATES)
    assert about["rate"] == chosen(found)
    assert len({one.error for one in found}) == len(RATES)
    assert all(0 <= one.agreement <= 1 for one in found)
    for model in (config_of(run)["model"], checkpoint.describe(Path(summary.checkpoint)).config["model"]):
        assert model["augmentation"] == about["rate"]
        assert model["classifier_weight"] == (0.5 if about["rate"] else 0)
    assert f"model.augmentation: {about['rate']:g}, chosen by {len(RATES) * SEEDS} pilots" in summary.augmentation
    assert edges_of_run(run) is not None


def test_it_is_the_run_that_the_number_gives(folder: Path):
    first = folder / "runs" / "small"
    rate = config_of(first)["model"]["augmentation"]
    given_rate = [f"model.augmentation={rate}", *(["model.classifier_weight=0"] if rate == 0 else [])]
    summary = train_run(settings(folder, "name=number", *given_rate))
    assert same_bits(weights(first), weights(folder / "runs" / "number"))
    assert summary.augmentation == ""
    assert not (folder / "runs" / "number" / "augmentation.json").exists()


def test_a_resumed_run_has_no_pilots_and_the_same_bits(folder: Path, caplog: pytest.LogCaptureFixture):
    run = folder / "runs" / "small"
    before, about, config = weights(run), (run / "augmentation.json").read_bytes(), config_of(run)
    shutil.rmtree(checkpoint.latest(run / "checkpoints"))
    assert checkpoint.describe(checkpoint.latest(run / "checkpoints")).step == 3
    with caplog.at_level(logging.INFO):
        summary = train_run(settings(folder), resume=True)
    assert "pilots of" not in caplog.text
    assert "chosen by 18 pilots" in summary.augmentation
    assert same_bits(before, weights(run))
    assert (run / "augmentation.json").read_bytes() == about
    assert config_of(run) == config


class InterruptAt(logging.Handler):
    """Sends this process a signal when a line begins so."""

    def __init__(self, beginning: str):
        super().__init__(logging.INFO)
        self.beginning = beginning

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.beginning):
            os.kill(os.getpid(), signal.SIGINT)


def test_pilots_that_were_stopped_start_anew(folder: Path, caplog: pytest.LogCaptureFixture):
    stopper, logger = InterruptAt(PILOTS), logging.getLogger("grndist.runs.augmentation")
    before = signal.getsignal(signal.SIGINT)
    caplog.set_level(logging.INFO)
    logger.addHandler(stopper)
    try:
        with pytest.raises(Interrupted, match=r"stopped among the pilots .* with the same command and --resume"):
            train_run(settings(folder, "name=stopped"))
    finally:
        logger.removeHandler(stopper)
    assert signal.getsignal(signal.SIGINT) is before
    run = folder / "runs" / "stopped"
    assert config_of(run)["model"]["augmentation"] == "auto"
    assert not (run / "augmentation.json").exists()
    caplog.clear()
    train_run(settings(folder, "name=stopped"), resume=True)
    assert PILOTS in caplog.text
    assert same_bits(weights(run), weights(folder / "runs" / "small"))


def test_a_run_with_a_number_does_not_become_auto_and_the_reverse(folder: Path):
    with pytest.raises(UserError, match=r"model\.augmentation: .* before, 0\.01 now"):
        train_run(settings(folder, "model.augmentation=0.01"), resume=True)
    (folder / "runs" / "small" / "augmentation.json").unlink()
    with pytest.raises(UserError, match=r"model\.augmentation: .* before, 'auto' now"):
        train_run(settings(folder), resume=True)


def test_starting_anew_with_a_number_forgets_the_pilots(folder: Path):
    summary = train_run(settings(folder, "model.augmentation=0.2"), overwrite=True)
    assert summary.augmentation == ""
    assert not (Path(summary.folder) / "augmentation.json").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ("preset=deepsem", "training.cells_per_step=100", "model.pilot_epochs=2"),
        ("training.genes_per_step=7", "genes.regulators={regulators}", "training.validation=0.2"),
        ("training.epochs=null", "training.steps=3", "training.source=cells"),
    ],
    ids=["alternating", "gene subsets, listed regulators, validation", "counted in steps"],
)
def test_it_works_with(folder: Path, overrides: tuple[str, ...]):
    (folder / "regulators.txt").write_text("g1\ng4\ng7\n")
    named = [override.format(regulators=folder / "regulators.txt") for override in overrides]
    train_run(settings(folder, "name=other", *named))
    about = json.loads((folder / "runs" / "other" / "augmentation.json").read_text())
    assert config_of(folder / "runs" / "other")["model"]["augmentation"] == about["rate"]
    assert all(np.isfinite([one["agreement"], one["reconstruction"], one["error"]]).all() for one in about["pilots"])


# --- mistakes ---


@pytest.mark.parametrize("value", ["1", "-0.1", "often", "true", "null", "[0.1]"])
def test_a_rate_that_is_none_is_one_message(folder: Path, value: str):
    words = "model.augmentation: Value error, a share of the entries was expected, from 0 to below 1, or auto; 0.1 is"
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        settings(folder, f"model.augmentation={value}")
    assert len(str(refused.value).splitlines()) == 2


def test_too_few_cells_to_hold_some_out(folder: Path, tmp_path: Path):
    counts, obs = small_counts(n_cells=4)
    obs["perturbation"] = ["a", "b", "c", "d"]
    write_store(tmp_path / "four.zarr", counts, obs, genes(12), "counts", {})
    with pytest.raises(UserError, match="holds out 20% of the cells of every label, which of 4 cells is none; give a"):
        train_run(settings(folder, f"store={tmp_path / 'four.zarr'}", "name=four"))


def test_a_pilot_that_diverges_is_named(folder: Path):
    with pytest.raises(UserError, match=r"a pilot of model\.augmentation=0: the loss is .*; or give a rate yourself"):
        train_run(settings(folder, "name=high", "training.learning_rate=1e30", "model.pilot_epochs=4"))


def test_a_model_needs_a_number():
    config = GRNVAEConfig(augmentation="auto", classifier_weight=0.5)
    with pytest.raises(ValueError, match='augmentation is "auto": a model needs a number'):
        GRNVAE(config, 5)
    for rate, weight in ((0.0, 0.0), (0.2, 0.5)):
        resolved = models.with_augmentation(config, rate)
        assert isinstance(resolved, GRNVAEConfig)
        assert (resolved.augmentation, resolved.classifier_weight) == (rate, weight)
        assert not models.pilot_epochs(resolved)
