from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grndist import inference
from grndist.errors import UserError
from grndist.inference import checkpoint_of_run, edges_of_checkpoint, edges_of_run
from grndist.models.catran import CaTran, CaTranConfig
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from grndist.optim import OptimizerConfig, Optimizers
from grndist.training import checkpoint
from grndist.training.loop import State

N = 11
OPTIMIZER = OptimizerConfig(optimizer="adam", learning_rate=1e-3)


def saved(folder: Path, model, config, step: int = 0) -> Path:
    state = State(model, Optimizers(OPTIMIZER, model.parameter_groups()), step)
    genes = [f"g{i}" for i in range(N)]
    about = checkpoint.Description(step, {"model": config.model_dump(mode="json")}, genes, "digest")
    return checkpoint.save(folder, state, about)


@pytest.fixture
def vae(tmp_path: Path) -> tuple[Path, np.ndarray]:
    config = GRNVAEConfig()
    model = GRNVAE(config, N)
    with torch.no_grad():
        model.weight.copy_(torch.randn(N, N, generator=torch.Generator().manual_seed(0)))
    return saved(tmp_path, model, config), model.adjacency(torch.arange(N)).numpy()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(k=st.integers(1, N * (N - 1)), rows=st.integers(1, 12))
def test_the_strongest_edges_come_first_whatever_the_blocks(vae: tuple[Path, np.ndarray], k: int, rows: int):
    path, adjacency = vae
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "ROWS", rows)
        edges = edges_of_checkpoint(path, k=k)
    order = np.argsort(-np.abs(adjacency).ravel(), kind="stable")[:k]
    wanted = [(f"g{i // N}", f"g{i % N}") for i in order]
    assert list(zip(edges.table["regulator"], edges.table["target"], strict=True)) == wanted
    assert np.array_equal(edges.table["weight"], adjacency.ravel()[order].astype(np.float64))
    assert edges.signed
    assert (edges.table["weight"] < 0).any() or k < 5


def test_a_threshold_keeps_what_reaches_it(vae: tuple[Path, np.ndarray]):
    path, adjacency = vae
    edges = edges_of_checkpoint(path, threshold=1.0)
    assert len(edges) == (np.abs(adjacency) >= 1).sum()
    with pytest.raises(UserError, match=r"no edge has a .weight. of at least 99"):
        edges_of_checkpoint(path, threshold=99.0)


def test_all_edges_are_every_pair_but_the_diagonal(vae: tuple[Path, np.ndarray]):
    assert len(edges_of_checkpoint(vae[0])) == N * (N - 1)


def test_more_edges_than_there_are_is_refused_with_both_numbers(vae: tuple[Path, np.ndarray]):
    with pytest.raises(UserError, match="111 edges were asked for but the network has only 110"):
        edges_of_checkpoint(vae[0], k=111)


def test_ties_are_cut_in_panel_order_to_exactly_k(tmp_path: Path):
    config = CaTranConfig(embedding=4)
    model = CaTran(config, N)
    torch.nn.init.zeros_(model.embedding)
    edges = edges_of_checkpoint(saved(tmp_path, model, config), k=12)
    wanted = [("g0", f"g{t}") for t in range(1, N)] + [("g1", "g0"), ("g1", "g2")]
    assert set(zip(edges.table["regulator"], edges.table["target"], strict=True)) == set(wanted)
    assert not edges.signed


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is not a run directory"), checkpoint_of_run(tmp_path):
        pass
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="no checkpoint here yet"), checkpoint_of_run(str(tmp_path)):
        pass


def test_the_network_of_a_run_is_that_of_its_newest_checkpoint(tmp_path: Path):
    config = GRNVAEConfig()
    for step in (1, 2):
        model = GRNVAE(config, N, seed=step)
        saved(tmp_path / "run" / "checkpoints", model, config, step)
    (tmp_path / "run" / "config.yaml").touch()
    with checkpoint_of_run(tmp_path / "run") as path:
        assert path == tmp_path / "run" / "checkpoints" / "step-00000002"
        newest = edges_of_checkpoint(path, k=20)
    found = edges_of_run(tmp_path / "run", k=20)
    assert found.table.equals(newest.table)
    assert found.origin == newest.origin
    assert found.origin["run"] == str(tmp_path / "run")


def test_at_most_takes_what_there_is(vae: tuple[Path, np.ndarray]):
    assert len(edges_of_checkpoint(vae[0], at_most=1000)) == 110
    assert len(edges_of_checkpoint(vae[0], at_most=7)) == 7


def test_settings_of_another_version_are_refused(vae: tuple[Path, np.ndarray]):
    file = vae[0] / "checkpoint.json"
    file.write_text(file.read_text().replace('"alpha"', '"alpha_of_the_future"'))
    with pytest.raises(UserError, match="its settings are not of this version of grndist"):
        edges_of_checkpoint(vae[0])
