from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from typer.testing import CliRunner

from grndist.cli import app
from grndist.data.normalise import ExpressionConfig
from grndist.data.store import Store
from grndist.data.view import View, whole
from grndist.errors import UserError
from grndist.evaluation.interventional import (
    Atlas,
    atlas_writing,
    effects_of,
    open_atlas,
    refuse_atlas,
    score_by,
    score_edges,
    write_atlas,
)
from grndist.networks.edges import EdgeList
from tests.evaluation.interventional.test_score_edges import NAMES, network

ONE_PASS = 2**28


@pytest.fixture
def many_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of five targets, so that a store of twelve takes several blocks."""
    for name in ("all_pairs", "atlas", "atlas_writing"):
        monkeypatch.setattr(f"grndist.evaluation.interventional.{name}.TARGETS", 5)


@pytest.mark.usefixtures("many_targets")
@pytest.mark.parametrize("memory", [1, ONE_PASS])
@pytest.mark.parametrize("config", [None, ExpressionConfig(transform="none", cell_minmax=True)], ids=["log", "minmax"])
def test_looking_edges_up_gives_the_table_of_the_cells(
    store: Store, tmp_path: Path, memory: int, config: ExpressionConfig | None
):
    view = replace(whole(store), columns=np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 11]))
    edges = network(["g1", "g3", "g5", "elsewhere"], NAMES)
    expected = score_edges(view, edges, config)
    written = write_atlas(tmp_path / "a.zarr", view, config, memory)
    for atlas in (effects_of(view, config, memory), written, open_atlas(tmp_path / "a.zarr")):
        pd.testing.assert_frame_equal(score_by(atlas, edges), expected, check_exact=True)
        pd.testing.assert_frame_equal(score_by(atlas, edges, 7), score_edges(view, edges, config, 7), check_exact=True)


def test_the_change_is_the_difference_of_mean_logs(store: Store):
    view = whole(store)
    counts = store.read_rows(0, store.n_cells).toarray()
    logs = np.log1p(counts * (view.median_total / counts.sum(axis=1, keepdims=True)))
    labels = store.obs["perturbation"].astype(str).to_numpy()
    pairs = pd.DataFrame({"regulator": ["g1", "g3", "elsewhere"], "target": ["g5", "g0", "g11"]})
    found = effects_of(view).look_up(pairs)
    for row in found.assign(**pairs).itertuples():
        gene = logs[:, NAMES.index(row.target)]
        expected = gene[labels == row.regulator].mean() - gene[labels == "non-targeting"].mean()
        assert row.log_fold_change == pytest.approx(expected, abs=1e-6)
        assert row.n == (labels == row.regulator).sum()


def test_an_atlas_says_what_it_is_of(store: Store, tmp_path: Path):
    view = whole(store)
    write_atlas(tmp_path / "a.zarr", view)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.attrs["store_digest"] == store.digest
    assert group.attrs["view_digest"] == view.digest
    assert group.attrs["expression"] == {"transform": "log1p", "cell_minmax": False}
    assert group["regulator"][:].tolist() == ["elsewhere", "g1", "g3"]
    assert group["p"].shape == (3, 12)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def interrupted(store_view: View, path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Begin an atlas and be interrupted after some blocks."""
    blocks, whole_block = [], atlas_writing.effects_on

    def stops(*arguments: object) -> object:
        if len(blocks) == after:
            raise KeyboardInterrupt
        blocks.append(arguments)
        return whole_block(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(atlas_writing, "effects_on", stops)
        with pytest.raises(KeyboardInterrupt):
            write_atlas(path, store_view, memory=1)
    assert not path.exists()


@pytest.mark.usefixtures("many_targets")
def test_after_an_interruption_only_the_blocks_that_lack_are_made(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    view, made, whole_block = whole(store), [], atlas_writing.effects_on
    interrupted(view, tmp_path / "a.zarr", monkeypatch, 2)

    def counted(groups: object, genes: np.ndarray, config: ExpressionConfig) -> object:
        made.extend(genes.tolist())
        return whole_block(groups, genes, config)

    monkeypatch.setattr(atlas_writing, "effects_on", counted)
    resumed = write_atlas(tmp_path / "a.zarr", view, memory=1)
    assert made == [10, 11]
    same(resumed, effects_of(view))


@pytest.mark.usefixtures("many_targets")
def test_blocks_of_other_cells_or_expression_are_made_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    view = whole(store)
    other = replace(view, rows=np.arange(0, store.n_cells, 2))
    interrupted(view, tmp_path / "a.zarr", monkeypatch, 2)
    same(write_atlas(tmp_path / "a.zarr", other), effects_of(other))
    interrupted(view, tmp_path / "b.zarr", monkeypatch, 2)
    config = ExpressionConfig(transform="none")
    same(write_atlas(tmp_path / "b.zarr", view, config), effects_of(view, config))


def same(one: Atlas, other: Atlas) -> None:
    assert one.regulators.equals(other.regulators)
    assert one.targets.equals(other.targets)
    for name, values in other.measures.items():
        assert np.array_equal(one.measures[name][:], values), name


def test_what_is_no_atlas_is_refused(store: Store, store_path: Path, tmp_path: Path):
    with pytest.raises(UserError, match="make one with grndist effects"):
        open_atlas(tmp_path / "none.zarr")
    with pytest.raises(UserError, match="another Zarr group"):
        open_atlas(store_path)
    for place, problem in [
        ("a.h5", "ends in .zarr"),
        ("s3://b/a.zarr", "this machine only"),
        ("x/a.zarr", "not exist"),
    ]:
        with pytest.raises(UserError, match=problem):
            refuse_atlas(place)
    write_atlas(tmp_path / "a.zarr", whole(store))
    with pytest.raises(UserError, match="--overwrite"):
        write_atlas(tmp_path / "a.zarr", whole(store))
    write_atlas(tmp_path / "a.zarr", whole(store), overwrite=True)


def test_cells_without_a_perturbed_gene_have_no_effects(store: Store):
    controls = np.flatnonzero(store.obs["perturbation"] == "non-targeting")
    with pytest.raises(UserError, match="no gene is perturbed"):
        effects_of(replace(whole(store), rows=controls))


def test_edges_whose_regulator_an_atlas_lacks_are_untestable(store: Store):
    atlas = effects_of(whole(store))
    table = pd.DataFrame({"regulator": ["g5", "g1", "g1"], "target": ["g2", "g1", "g2"], "weight": [3.0, 2.0, 1.0]})
    assert score_by(atlas, EdgeList(table))["n"].gt(0).tolist() == [False, True]
    with pytest.raises(UserError, match="none of the 1 edges is testable"):
        score_by(atlas, EdgeList(table.head(1)))


def test_the_command_writes_the_atlas_of_the_cells_it_is_told(store: Store, store_path: Path, tmp_path: Path):
    arguments = ["effects", str(store_path), "genes.min_cells=1", "expression.transform=none", "-o"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "a.zarr")])
    assert done.exit_code == 0, done.output
    assert "3 perturbed genes x 12 targets" in done.output
    same(open_atlas(tmp_path / "a.zarr"), effects_of(whole(store), ExpressionConfig(transform="none")))
