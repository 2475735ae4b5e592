import json
from pathlib import Path

import pytest
import torch

from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.optim import OptimizerConfig, Optimizers
from grndist.storage import open_storage
from grndist.training import checkpoint
from grndist.training.checkpoint import CheckpointError, Description
from grndist.training.loop import State, TrainingError, train
from tests.models.batches import batch_of

PANEL = [f"g{i}" for i in range(6)]
OPTIMIZERS = {
    "lion": OptimizerConfig(optimizer="lion", learning_rate=1e-3, weight_decay=0.05, betas=(0.9, 0.99)),
    "adam": OptimizerConfig(optimizer="adam", learning_rate=1e-3),
    "alternating": OptimizerConfig(optimizer="rmsprop", learning_rate=1e-3, schedule="alternating"),
}


def fresh(optimizer: str) -> State:
    model = (
        GRNVAE(GRNVAEConfig(sparse_delay=1), 6) if optimizer == "alternating" else CaTran(CaTranConfig(embedding=4), 6)
    )
    return State(model, Optimizers(OPTIMIZERS[optimizer], model.parameter_groups()))


def batch_at(step: int):
    return batch_of(20, [0, 1, 3, 4], epoch=step // 3, step=step % 3)


def ignore(state, batch, losses) -> None:
    pass


def described(state: State) -> Description:
    return Description(state.step, {"model": {"kind": "catran"}}, PANEL, "digest")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, optimizer: str, stop: int):
    whole, half, resumed = fresh(optimizer), fresh(optimizer), fresh(optimizer)
    train(whole, batch_at, 12, ignore)
    train(half, batch_at, stop, ignore)
    path = checkpoint.save(tmp_path, half, described(half))
    checkpoint.restore(path, resumed)
    assert resumed.step == stop
    train(resumed, batch_at, 12, ignore)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_checkpoint_describes_itself_without_pickle(tmp_path: Path):
    state = fresh("lion")
    train(state, batch_at, 3, ignore)
    path = checkpoint.save(tmp_path, state, described(state))
    assert sorted(file.name for file in path.iterdir()) == [
        "checkpoint.json",
        "optimizer.safetensors",
        "weights.safetensors",
    ]
    assert checkpoint.describe(path) == described(state)


def test_others_may_read_a_checkpoint_as_they_may_other_files(tmp_path: Path):
    (tmp_path / "any").touch()
    path = checkpoint.save(tmp_path, fresh("lion"), described(fresh("lion")))
    assert {file.stat().st_mode for file in path.iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_the_last_two_are_kept(tmp_path: Path):
    state = fresh("lion")
    for step in (1, 2, 3):
        train(state, batch_at, step, ignore)
        checkpoint.save(tmp_path, state, described(state))
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    assert checkpoint.latest(tmp_path).name == "step-00000003"


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path):
    (tmp_path / "step-00000009").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint here yet"):
        checkpoint.latest(tmp_path)


def test_the_newest_whole_checkpoint_is_fetched(tmp_path: Path):
    state = fresh("lion")
    for state.step in (1, 2):
        checkpoint.save(tmp_path / "run" / "checkpoints", state, described(state))
    storage = open_storage(tmp_path / "run")
    storage.write("checkpoints/step-00000003/weights.safetensors", b"half")
    assert checkpoint.whole(storage.sizes()) == ["step-00000001", "step-00000002"]
    path = checkpoint.fetch_latest(storage, "checkpoints", tmp_path / "copy", checkpoint.NETWORK_FILES)
    assert sorted(file.name for file in path.iterdir()) == ["checkpoint.json", "weights.safetensors"]
    assert checkpoint.describe(path).step == 2
    storage.delete(["checkpoints/step-00000002/weights.safetensors"])
    with pytest.raises(CheckpointError, match=r"step-00000002 has no weights\.safetensors; delete it"):
        checkpoint.fetch_latest(storage, "checkpoints", tmp_path / "again")
    with pytest.raises(CheckpointError, match="no checkpoint here yet"):
        checkpoint.fetch_latest(storage, "elsewhere", tmp_path / "again")


def test_another_panel_is_refused_by_name(tmp_path: Path):
    about = described(fresh("lion"))
    checkpoint.check_panel(tmp_path, about, PANEL)
    with pytest.raises(
        CheckpointError, match=r"another gene panel.*only in the checkpoint: 'g5'; only in the store: 'h'"
    ):
        checkpoint.check_panel(tmp_path, about, [*PANEL[:5], "h"])
    with pytest.raises(CheckpointError, match="the order differs"):
        checkpoint.check_panel(tmp_path, about, PANEL[::-1])


def test_damage_and_unknown_versions_are_named(tmp_path: Path):
    state = fresh("lion")
    path = checkpoint.save(tmp_path, state, described(state))
    (path / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors cannot be read"):
        checkpoint.restore(path, fresh("lion"))
    about = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(about | {"format_version": 9}))
    with pytest.raises(CheckpointError, match="checkpoint format version 9"):
        checkpoint.describe(path)
    (path / "checkpoint.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        checkpoint.describe(path)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    state = fresh("lion")
    train(state, batch_at, 2, ignore)
    before = {name: value.clone() for name, value in state.model.state_dict().items() if "running" not in name}

    def poisoned(step: int):
        batch = batch_at(step)
        batch.expression[0, 0] = float("inf")
        return batch

    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 2.*lower training.learning_rate"):
        train(state, poisoned, 3, ignore)
    assert state.step == 2
    assert all(
        torch.equal(value, state.model.state_dict()[name]) for name, value in before.items() if "num_b" not in name
    )


def test_every_step_is_told_with_its_losses():
    told = []
    train(
        fresh("alternating"), batch_at, 5, lambda state, batch, losses: told.append((state.step, batch.epoch, losses))
    )
    assert [(step, epoch) for step, epoch, _ in told] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]
    assert told[-1][2]["loss"] == pytest.approx(sum(told[-1][2].values()) - told[-1][2]["loss"], rel=1e-5)
