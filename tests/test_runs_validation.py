"""Held-out cells: that they are never trained on, how they are looked at, and when that ends a run."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from grndist.config import ConfigError
from grndist.data.ingest.build import write_store
from grndist.data.normalise import expression, moments, standardised
from grndist.data.selection import select
from grndist.data.store import Store, open_store
from grndist.data.stream.batch import Batch
from grndist.data.view import View, whole
from grndist.errors import UserError
from grndist.runs import RunSummary, load_run, train_run
from grndist.runs.learning import learning
from grndist.runs.validation import Schedule, divided
from grndist.training import checkpoint
from grndist.training.loop import Look, held_out_loss
from tests.conftest import genes, small_counts

RUN = {"tracking": {"kind": "none"}}
TRAINING = {"epochs": 20, "cells_per_step": 50, "checkpoint_every": 5, "log_every": 7, "threads": 1}
HELD_OUT = {"validation": 0.2, "validate_every": 1}
FROM_CELLS = {"source": "cells", "steps": None}
KINDS = {
    "catran": {"model": {"kind": "catran", "embedding": 4}, "training": TRAINING | {"genes_per_step": 8}},
    "dazzle": {"preset": "dazzle", "training": TRAINING},
    "catran_d": {"preset": "catran_d", "model": {"embedding": 4}, "training": TRAINING | FROM_CELLS},
}
BY_HEART = [
    *("training.validation=0.9", "model.embedding=12", "model.ridge=0", "training.learning_rate=0.1"),
    *("training.epochs=60", "training.validate_every=5", "training.log_every=5"),
]
# What is learnt is lost in rounding, so that no look is better than another.
FROZEN = ["training.learning_rate=1e-30", "training.adjacency_learning_rate=1e-30"]


@pytest.fixture
def folder(tmp_path: Path, store_path: Path) -> Path:
    """With a run file for every kind of model, which hold out a fifth of the cells."""
    for kind, tree in KINDS.items():
        about = {"store": str(store_path), "runs": str(tmp_path / "runs")}
        settings = RUN | tree | about | {"training": tree["training"] | HELD_OUT}
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def run(file: Path, *overrides: str, **how: bool) -> RunSummary:
    return train_run(load_run(file, list(overrides)), **how)


def weights(summary: RunSummary) -> dict[str, Tensor]:
    return checkpoint.load_weights(Path(summary.checkpoint))


def metrics(summary: RunSummary) -> list[dict[str, float]]:
    """Lines of numbers, without the one that is of the machine."""
    lines = [json.loads(line) for line in (Path(summary.folder) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "cells_per_second"} for line in lines]


def looks(summary: RunSummary) -> list[Look]:
    return [Look(line["step"], line["validation_loss"]) for line in metrics(summary) if "validation_loss" in line]


# --- which cells ---


@pytest.mark.parametrize("relabelled", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_same_share_of_every_label_is_held_out(store: Store, share: float, relabelled: bool):
    view = whole(store)
    if relabelled:  # as CausalBench's regimes do
        labels = pd.Categorical(np.where(np.arange(300) % 3 == 0, "g1", "non-targeting"))
        view = View(store, view.rows, view.columns, view.median_total, labels=labels)
    training, held_out = divided(view, share, seed=3)
    assert held_out is not None
    assert np.array_equal(np.sort(np.concatenate([training.rows, held_out.rows])), view.rows)
    assert (np.diff(training.rows) > 0).all()
    label_of_row = pd.Series(view.obs["perturbation"].astype(str).to_numpy(), index=view.rows)
    for part in (training, held_out):
        assert np.array_equal(part.obs["perturbation"].astype(str), label_of_row[part.rows])
        assert part.label_names == view.label_names  # or labels of held-out cells would mean others
        assert part.median_total == view.median_total
    held = held_out.obs["perturbation"].value_counts()
    assert ((held - share * view.obs["perturbation"].value_counts()).abs() < 1).all()


def test_held_out_cells_are_a_function_of_the_seed(store: Store):
    first, again, other = (divided(whole(store), 0.2, seed)[0].rows for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("kind", "zscore"), [("catran", "all"), ("dazzle", "none"), ("catran_d", "none")])
def test_validation_changes_no_bit_of_what_is_learnt_from_the_other_cells(folder: Path, kind: str, zscore: str):
    """Another run is told by its filter to see just those cells; it must end with the same weights and statistics."""
    settings = ["expression.transform=none", f"expression.zscore={zscore}", "training.epochs=3"]
    config = load_run(folder / f"{kind}.yaml", settings)
    training, _ = divided(select(open_store(config.store), config), 0.2, 0)
    counts, obs = small_counts()
    obs["use"] = np.where(obs.index.isin(training.obs.index), "training", "validation")
    write_store(folder / "marked.zarr", counts, obs, genes(12), "counts", {})
    settings.append(f"store={folder / 'marked.zarr'}")
    validated = run(folder / f"{kind}.yaml", *settings)
    alone = ["training.validation=null", "cells.where=use == 'training'", "name=alone"]
    plain = run(folder / f"{kind}.yaml", *settings, *alone)
    assert len(looks(validated)) == 3
    assert looks(plain) == []
    assert validated.losses["loss"] == plain.losses["loss"]
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(validated).items())


def test_held_out_cells_are_standardised_like_training_cells(folder: Path):
    config = load_run(folder / "catran.yaml", ["expression.zscore=all", "training.genes_per_step=null"])
    training, held_out = divided(select(open_store(config.store), config), 0.2, 0)
    validation = learning(config, training, held_out).validation
    assert validation is not None
    batches = [validation.batch_at(number).expression.numpy().copy() for number in validation.numbers]
    rows, values = next(held_out.whole_rows())
    plain = expression(values, held_out.totals[rows], held_out, config.expression).toarray()
    expected = standardised(plain, *moments(training, config.expression), config.expression)
    found = np.concatenate(batches)
    assert len(batches) == 2  # 60 cells in steps of 50
    np.testing.assert_allclose(*(part[np.lexsort(part.round(4).T)] for part in (found, expected)), rtol=0, atol=1e-5)


# --- the loss ---


class Normalised(nn.Module):
    """One loss term that depends on the mode and one that does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"error": self.norm(batch.expression).square().mean(), "penalty": batch.expression.sum() + 1e9}


def batch_of(values: list[list[float]]) -> Batch:
    n, none = len(values), torch.full((len(values),), -1)
    return Batch(torch.tensor(values), torch.arange(2), none, torch.zeros_like(none), ((0, n),), 0, 0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_the_held_out_loss_is_a_mean_over_cells_and_leaves_the_model_as_it_was(training: bool):
    model = Normalised().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [batch_of([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]), batch_of([[3.0, 3.0]])]
    loss = held_out_loss(model, batches, ["error"])
    assert loss == pytest.approx((3 * 1 + 1 * 9) / 4, rel=1e-4)  # running statistics of a new BatchNorm: 0 and 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training == model.norm.training == training
    assert all(parameter.grad is None for parameter in model.parameters())


# --- when to stop ---


def stops_at(losses: list[float], patience: int) -> int | None:
    """Number of looks after which training ends, counted one by one."""
    best, waited = math.inf, -1
    for number, loss in enumerate(losses, start=1):
        waited = 0 if loss < best or number == 1 else waited + 1
        best = min(best, loss)
        if waited == patience:
            return number
    return None


@given(losses=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.inf]), min_size=1), patience=st.integers(1, 4))
def test_patience_counts_looks_since_the_best_one(losses: list[float], patience: int):
    schedule = Schedule(steps=10_000, every=10, first=20, patience=patience, per_epoch=5)
    early = [Look(10, 0.0), Look(20, 0.0)]  # better than all, and too early to count
    seen = [Look(30 + 10 * number, loss) for number, loss in enumerate(losses)]
    over = [schedule.is_over(early + seen[:n]) for n in range(len(seen) + 1)]
    expected = stops_at(losses, patience)
    assert (over.index(True) if True in over else None) == expected
    if expected is not None:
        at = seen[expected - 1].step
        words = f"stopped early at epoch {at // 5} of 2,000: held-out loss has not improved for {patience} validations"
        assert schedule.verdict(early + seen[:expected]).startswith(words)


def test_a_loss_that_is_not_a_number_is_never_better():
    schedule = Schedule(steps=100, every=10, first=0, patience=2, per_epoch=None)
    assert not schedule.is_over([Look(10, math.nan), Look(20, 0.5), Look(30, math.nan)])
    found = [Look(10, math.nan), Look(20, 0.5), Look(30, math.nan), Look(40, math.nan)]
    assert schedule.verdict(found).endswith("for 2 validations (best 0.5 at step 20)")


@given(every=st.integers(1, 50), steps=st.integers(1, 200))
def test_looks_are_regular_and_one_is_last(every: int, steps: int):
    schedule = Schedule(steps, every, first=0, patience=None, per_epoch=None)
    due = [step for step in range(1, steps + 1) if schedule.is_due(step)]
    assert due == sorted({*range(every, steps + 1, every), steps})
    assert not schedule.is_over([Look(step, float(step)) for step in due])


# --- runs ---


def test_a_run_that_does_not_improve_stops_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "grndist")
    summary = run(folder / "dazzle.yaml", *FROZEN, "training.patience=2")
    found = looks(summary)
    assert {look.loss for look in found} == {found[0].loss}  # the same cells and noise every time
    assert [look.step for look in found] == [5 * epoch for epoch in range(1, 9)]  # 240 cells in steps of 50
    best = f"{found[0].loss:.4g}"
    words = f"stopped early at epoch 8 of 20: held-out loss has not improved for 2 validations (best {best} at epoch 6)"
    assert summary.stopped_early == words  # the sparse loss starts after 5 epochs, and only then looks count
    assert words in caplog.text
    assert "cells: 60 of 300 held out by training.validation 0.2" in caplog.text
    assert summary.steps == checkpoint.describe(Path(summary.checkpoint)).step == 40
    assert summary.losses["validation_loss"] == found[0].loss
    assert [line["step"] for line in metrics(summary)] == sorted({*range(5, 41, 5), *range(7, 41, 7)})

    caplog.clear()
    again = run(folder / "dazzle.yaml", *FROZEN, "training.patience=2", resume=True)
    assert (again.checkpoint, again.stopped_early, again.losses) == (summary.checkpoint, words, {})
    assert words in caplog.text


def test_a_resumed_run_stops_where_it_would_have(folder: Path):
    straight = run(folder / "catran_d.yaml", *BY_HEART, "training.patience=2")
    assert straight.stopped_early
    before, lines = weights(straight), metrics(straight)
    newest = Path(straight.checkpoint)
    for file in sorted(newest.iterdir()):
        file.unlink()
    newest.rmdir()
    resumed = run(folder / "catran_d.yaml", *BY_HEART, "training.patience=2", resume=True)
    assert resumed.seconds > 0  # there were steps left
    assert (resumed.steps, resumed.stopped_early) == (straight.steps, straight.stopped_early)
    assert all(torch.equal(value, before[name]) for name, value in weights(resumed).items())
    assert metrics(resumed) == lines


def test_a_run_that_improves_goes_on_to_its_end(folder: Path):
    summary = run(folder / "dazzle.yaml", "training.patience=3", "training.validate_every=2")
    first, *_, last = looks(summary)
    assert last.loss < 0.95 * first.loss
    assert (summary.steps, summary.stopped_early) == (100, "")


def test_the_held_out_loss_rises_where_a_model_learns_30_cells_by_heart(folder: Path):
    """Genes of the fixture are nearly independent, so there is little else to learn."""
    lines = metrics(run(folder / "catran_d.yaml", *BY_HEART))
    assert lines[-1]["prediction"] < 0.7 * lines[0]["prediction"]
    assert lines[-1]["validation_loss"] > 1.1 * lines[0]["validation_loss"]
    stopped = run(folder / "catran_d.yaml", *BY_HEART, "training.patience=2", "name=stopped")
    assert (stopped.steps, stopped.stopped_early[-12:]) == (15, " at epoch 5)")


def test_a_run_counted_in_steps_is_looked_at_after_passes_over_its_cells(folder: Path):
    lengths = ["training.epochs=null", "training.steps=23", "training.validate_every=2"]
    summary = run(folder / "catran_d.yaml", *lengths)
    assert [look.step for look in looks(summary)] == [10, 20, 23]
    stopped = run(folder / "catran_d.yaml", *FROZEN, *lengths, "training.patience=1", "name=stopped")
    assert stopped.stopped_early.startswith("stopped early at step 20 of 23: held-out loss has not improved for 1 val")


# --- mistakes ---


def test_patience_needs_held_out_cells(folder: Path):
    with pytest.raises(ConfigError, match=r"training\.patience: Value error, it needs held-out cells; set training\.v"):
        run(folder / "dazzle.yaml", "training.validation=null", "training.patience=3")


@pytest.mark.parametrize("share", ["0", "1", "-0.1"])
def test_a_share_is_between_none_and_all(folder: Path, share: str):
    with pytest.raises(ConfigError, match=r"training\.validation: Input should be"):
        run(folder / "dazzle.yaml", f"training.validation={share}")


def test_a_share_that_leaves_one_side_without_cells_is_refused(folder: Path, store: Store):
    words = r"training\.validation=0\.001 holds out none of the 300 cells; raise it, or set it to null"
    with pytest.raises(UserError, match=words):
        run(folder / "dazzle.yaml", "training.validation=0.001")
    assert not (folder / "runs").exists()
    view = whole(store)
    few = View(store, view.rows[view.perturbed == 1][:4], view.columns, view.median_total)
    with pytest.raises(UserError, match=r"validation=0\.9 holds out all of the 4 cells; lower it, or set it to null"):
        divided(few, 0.9, seed=0)


@pytest.mark.parametrize("source", ["auto", "moments"])
def test_moments_of_all_cells_hold_none_out(folder: Path, source: str):
    words = r"training\.validation=0\.2 holds out cells of mini-batches, and this run learns from the moments of all"
    with pytest.raises(UserError, match=words):
        run(folder / "catran_d.yaml", f"training.source={source}", "training.epochs=null", "training.steps=5")
