"""What is logged of a network, and what of a large or a diverged one."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from grndist.inference import edges_of_checkpoint
from grndist.runs.logged import files_at_the_end, files_of, strongest
from tests.inference.checkpoints import GENES, catran, catran_d, grn_vae, saved


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("name: x\n")
    return tmp_path / "config.yaml"


def about(files: dict[str, Path]) -> dict:
    return json.loads(files["network.json"].read_text())


@pytest.mark.parametrize("model", [grn_vae(), catran(), catran("undirected"), catran_d()], ids=lambda m: m.config.kind)
def test_all_edges_and_the_checkpoint_are_logged(model: torch.nn.Module, settings: Path, tmp_path: Path):
    checkpoint = saved(tmp_path, model)
    files = files_at_the_end("runs/x", settings, checkpoint, tmp_path)
    assert set(files) == {"weights.safetensors", "checkpoint.json", "config.yaml", "network.json", "edges.parquet"}
    everything = edges_of_checkpoint(checkpoint).table
    pd.testing.assert_frame_equal(pd.read_parquet(files["edges.parquet"]), everything)
    said = about(files)
    assert (said["edges"], said["complete"]) == (len(everything), True)
    assert (said["model"], said["genes"], said["store_digest"]) == (model.config.kind, GENES, "digest")
    assert said["directed"] == (model.config.kind != "catran" or model.config.edges == "directed")
    assert said["run"] == str(Path("runs/x").absolute())


@pytest.mark.parametrize(("held", "complete"), [(109, False), (110, True), (111, True)])
def test_the_strongest_are_kept_and_it_is_known_whether_they_are_all(
    held: int, complete: bool, settings: Path, tmp_path: Path
):
    checkpoint = saved(tmp_path, grn_vae())
    edges, is_all = strongest("runs/x", checkpoint, held)
    assert (len(edges), is_all) == (min(held, 110), complete)
    pd.testing.assert_frame_equal(edges.table, edges_of_checkpoint(checkpoint).table.head(held))
    assert about(files_of("runs/x", settings, checkpoint, tmp_path, (edges, is_all)))["complete"] == complete


def test_a_large_panel_is_logged_without_edges(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = saved(tmp_path, grn_vae())
    monkeypatch.setattr("grndist.runs.logged.PAIRS", len(GENES) ** 2)
    assert "edges.parquet" in files_at_the_end("runs/x", settings, checkpoint, tmp_path)
    monkeypatch.setattr("grndist.runs.logged.PAIRS", len(GENES) ** 2 - 1)
    files = files_at_the_end("runs/x", settings, checkpoint, tmp_path)
    assert "edges.parquet" not in files
    assert about(files)["complete"] is False


def test_a_diverged_network_is_logged_without_edges_and_the_run_does_not_fail(
    settings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = grn_vae()
    with torch.no_grad():
        model.weight[2, 3] = float("nan")
    files = files_at_the_end("runs/x", settings, saved(tmp_path, model), tmp_path)
    assert "edges.parquet" not in files
    assert "MLflow's model of this run is without its edges" in caplog.text
    assert "training has diverged" in caplog.text
