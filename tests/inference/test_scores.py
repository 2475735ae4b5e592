from pathlib import Path

import numpy as np
import pytest
import zarr

from grndist.errors import UserError
from grndist.inference import GeneLists, described_scores, edges_of_run, network, refuse_scores, scores
from tests.inference.checkpoints import GENES, UNMEASURED, adjacency, catran, catran_d, grn_vae, run_of


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks and chunks both ways."""
    monkeypatch.setattr(network, "ROWS", 4)
    monkeypatch.setattr(scores, "ROWS", 4)
    monkeypatch.setattr(scores, "COLUMNS_PER_CHUNK", 5)


@pytest.mark.parametrize("make", [catran, catran_d, grn_vae])
def test_every_score_is_written_and_the_edges_are_those_without(tmp_path: Path, make):
    model = make()
    run, path = run_of(tmp_path / "run", model), tmp_path / "all.zarr"
    edges = edges_of_run(run, k=7, scores=path)
    assert edges.table.equals(edges_of_run(run, k=7).table)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3
    array = group["scores"]
    assert (array.dtype, array.chunks) == (np.float32, (4, 5))
    assert array.metadata.dimension_names == ("regulator", "target")
    assert np.array_equal(array[:], adjacency(model, rows=4))
    assert [*group["target"][:]] == GENES
    assert [*group["regulator"][:]] == (GENES + UNMEASURED)[: model.n_regulators]
    assert dict(group.attrs) == {"model": model.config.kind, "signed": model.signed, "store_digest": "digest"}
    assert described_scores(path).startswith(f"all scores, {model.n_regulators} regulators x 11 targets, 0.0 MiB")


def test_lists_limit_the_scores(tmp_path: Path):
    model = grn_vae()
    run, path = run_of(tmp_path / "run", model), tmp_path / "some.zarr"
    (tmp_path / "r.txt").write_text("g9\ng3\n")
    (tmp_path / "t.txt").write_text("g1\ng2\ng8\n")
    edges_of_run(run, scores=path, lists=GeneLists(tmp_path / "r.txt", tmp_path / "t.txt"))
    group = zarr.open_group(path, mode="r")
    assert ([*group["regulator"][:]], [*group["target"][:]]) == (["g3", "g9"], ["g1", "g2", "g8"])
    assert np.array_equal(group["scores"][:], adjacency(model)[np.ix_([3, 9], [1, 2, 8])])


def test_what_fails_leaves_nothing_behind_and_keeps_what_was_there(tmp_path: Path):
    run, path = run_of(tmp_path / "run", grn_vae()), tmp_path / "all.zarr"
    with pytest.raises(UserError, match="only 110"):
        edges_of_run(run, k=111, scores=path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    edges_of_run(run, scores=path)
    with pytest.raises(UserError, match=r"all\.zarr exists already; pass --overwrite"):
        edges_of_run(run, scores=path)
    with pytest.raises(UserError, match="only 110"):
        edges_of_run(run, k=111, scores=path, overwrite=True)
    assert zarr.open_array(path / "scores", mode="r").shape == (11, 11)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["all.zarr", "run"]
    edges_of_run(run, scores=path, overwrite=True)


def test_a_disk_without_space_is_refused_with_the_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scores, "BYTES", 2**60)  # a score as large as any disk
    run = run_of(tmp_path / "run", grn_vae())
    with pytest.raises(UserError, match=r"all\.zarr: the scores need .* MiB and .* MiB are free there"):
        edges_of_run(run, scores=tmp_path / "all.zarr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s3://bucket/all.zarr", "to this machine only; give a path"),
        ("all.parquet", "give a name that ends in .zarr"),
        ("none/all.zarr", "none does not exist; create it first"),
        ("there.zarr", "exists already; pass --overwrite"),
    ],
)
def test_a_place_that_cannot_be_is_refused(name: str, words: str, tmp_path: Path):
    (tmp_path / "there.zarr").mkdir()
    with pytest.raises(UserError, match=words):
        refuse_scores(name if "://" in name else str(tmp_path / name))
    refuse_scores(str(tmp_path / "new.zarr"))
