from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grndist.errors import UserError
from grndist.inference import GeneLists, checkpoint_of_run, edges_of_checkpoint, edges_of_run, network
from grndist.models.grn_vae import GRNVAE, GRNVAEConfig
from tests.inference.checkpoints import GENES, UNMEASURED, N, adjacency, catran, catran_d, grn_vae, run_of, saved


@pytest.fixture
def vae(tmp_path: Path) -> tuple[Path, np.ndarray]:
    model = grn_vae()
    return saved(tmp_path, model), adjacency(model)


def pairs(edges) -> list[tuple[str, str]]:
    return list(zip(edges.table["regulator"], edges.table["target"], strict=True))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(k=st.integers(1, N * (N - 1)), rows=st.integers(1, 12))
def test_the_strongest_edges_come_first_whatever_the_blocks(vae: tuple[Path, np.ndarray], k: int, rows: int):
    path, weights = vae
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "ROWS", rows)
        edges = edges_of_checkpoint(path, k=k)
    order = np.argsort(-np.abs(weights).ravel(), kind="stable")[:k]
    assert pairs(edges) == [(f"g{i // N}", f"g{i % N}") for i in order]
    assert np.array_equal(edges.table["weight"], weights.ravel()[order].astype(np.float64))
    assert edges.signed
    assert (edges.table["weight"] < 0).any() or k < 5


def test_a_threshold_keeps_what_reaches_it(vae: tuple[Path, np.ndarray]):
    path, weights = vae
    edges = edges_of_checkpoint(path, threshold=1.0)
    assert len(edges) == (np.abs(weights) >= 1).sum()
    with pytest.raises(UserError, match=r"no edge has a .weight. of at least 99"):
        edges_of_checkpoint(path, threshold=99.0)


def test_all_edges_are_every_pair_but_the_diagonal(vae: tuple[Path, np.ndarray]):
    assert len(edges_of_checkpoint(vae[0])) == N * (N - 1)


def test_more_edges_than_there_are_is_refused_with_both_numbers(vae: tuple[Path, np.ndarray]):
    with pytest.raises(UserError, match="111 edges were asked for but the network has only 110"):
        edges_of_checkpoint(vae[0], k=111)


def test_ties_are_cut_in_panel_order_to_exactly_k(tmp_path: Path):
    model = catran()
    torch.nn.init.zeros_(model.embedding)
    edges = edges_of_checkpoint(saved(tmp_path, model), k=12)
    assert set(pairs(edges)) == {*(("g0", f"g{t}") for t in range(1, N)), ("g1", "g0"), ("g1", "g2")}
    assert not edges.signed


def test_the_network_of_a_run_is_that_of_its_newest_checkpoint(tmp_path: Path):
    for step in (1, 2):
        saved(tmp_path / "run" / "checkpoints", GRNVAE(GRNVAEConfig(), N, seed=step), step)
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


# --- lists ---


def listing(file: Path, *names: str) -> Path:
    file.write_text("\n".join(["# a comment", "", *names]) + "\n")
    return file


def test_lists_limit_the_regulators_and_the_targets(vae: tuple[Path, np.ndarray], tmp_path: Path):
    path, weights = vae
    lists = GeneLists(listing(tmp_path / "r.txt", "g7", "g2", "g7"), listing(tmp_path / "t.txt", "g0", "g10", "g2"))
    edges = edges_of_checkpoint(path, lists=lists)
    assert set(pairs(edges)) == {(r, t) for r in ("g2", "g7") for t in ("g0", "g2", "g10") if r != t}
    for (regulator, target), weight in zip(pairs(edges), edges.table["weight"], strict=True):
        assert weight == weights[GENES.index(regulator), GENES.index(target)]
    assert edges.genes == tuple(GENES)


def test_regulators_that_were_not_measured_take_part(tmp_path: Path):
    model = catran_d()
    path, weights = saved(tmp_path, model), adjacency(model)
    edges = edges_of_checkpoint(path)
    assert set(edges.table["regulator"]) == {*GENES, *UNMEASURED}
    assert set(edges.table["target"]) == set(edges.genes) == set(GENES)
    found = edges.table.set_index(["regulator", "target"])["weight"]
    assert found["x1", "g3"] == weights[N + 1, 3]
    only = edges_of_checkpoint(path, lists=GeneLists(regulators=listing(tmp_path / "r.txt", "x1")))
    assert set(pairs(only)) == {("x1", gene) for gene in GENES}
    with pytest.raises(UserError, match="'x1' is not one of the run's 11 genes"):
        edges_of_checkpoint(path, lists=GeneLists(targets=listing(tmp_path / "t.txt", "x1")))


@pytest.mark.parametrize("rows", [1, 4, 99])
def test_each_undirected_pair_comes_once_in_panel_order(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "ROWS", rows)
    model = catran("undirected")
    path, weights = saved(tmp_path, model), adjacency(model)
    edges = edges_of_checkpoint(path)
    assert sorted(pairs(edges)) == sorted((GENES[r], GENES[t]) for r in range(N) for t in range(r + 1, N))
    found = edges.table.set_index(["regulator", "target"])["weight"]
    assert found["g2", "g7"] == pytest.approx(max(weights[2, 7], weights[7, 2]))


def test_an_undirected_pair_may_fit_the_lists_either_way_round(tmp_path: Path):
    path = saved(tmp_path, catran("undirected"))
    lists = GeneLists(listing(tmp_path / "r.txt", "g2", "g7"), listing(tmp_path / "t.txt", "g0", "g2", "g7", "g9"))
    wanted = {("g2", "g0"), ("g2", "g7"), ("g2", "g9"), ("g7", "g0"), ("g7", "g9")}
    assert set(pairs(edges_of_checkpoint(path, lists=lists))) == wanted
    among = saved(tmp_path / "few", catran("undirected"), regulators=["g7"])
    assert set(pairs(edges_of_checkpoint(among))) == {("g7", gene) for gene in GENES if gene != "g7"}


def test_a_list_of_regulators_stays_within_those_of_the_run(tmp_path: Path):
    run = run_of(tmp_path, grn_vae(), regulators=["g1", "g4", "g9"])
    assert set(edges_of_run(run).table["regulator"]) == {"g1", "g4", "g9"}
    wanted = GeneLists(regulators=listing(tmp_path / "r.txt", "g9", "g1"))
    assert set(edges_of_run(run, lists=wanted).table["regulator"]) == {"g1", "g9"}
    wanted = GeneLists(regulators=listing(tmp_path / "r.txt", "g9", "g2"))
    with pytest.raises(UserError, match=r"r\.txt, line 4: 'g2' is not one of the run's 3 regulators \('g1', 'g4'"):
        edges_of_run(run, lists=wanted)


def test_an_unknown_name_in_a_list_is_named_with_its_line(vae: tuple[Path, np.ndarray], tmp_path: Path):
    lists = GeneLists(targets=listing(tmp_path / "t.txt", "g1", "STAT1", "g2", "JAK2"))
    with pytest.raises(UserError, match=r"t\.txt, line 4: 'STAT1' .* 11 genes .* 2 of the file's 4 names .* delete"):
        edges_of_checkpoint(vae[0], lists=lists)
    with pytest.raises(UserError, match=r"none\.txt: no such file; --regulators is a text file with one gene a line"):
        edges_of_checkpoint(vae[0], lists=GeneLists(regulators=tmp_path / "none.txt"))


# --- what is no network ---


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is not a run directory"), checkpoint_of_run(tmp_path):
        pass
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="no checkpoint here yet"), checkpoint_of_run(str(tmp_path)):
        pass


def test_settings_of_another_version_are_refused(vae: tuple[Path, np.ndarray]):
    file = vae[0] / "checkpoint.json"
    file.write_text(file.read_text().replace('"alpha"', '"alpha_of_the_future"'))
    with pytest.raises(UserError, match="its settings are not of this version of grndist"):
        edges_of_checkpoint(vae[0])


def test_a_checkpoint_from_before_unmeasured_regulators_is_read(vae: tuple[Path, np.ndarray]):
    file = vae[0] / "checkpoint.json"
    assert '"unmeasured": null' in file.read_text()
    file.write_text(file.read_text().replace('"unmeasured": null,', ""))
    assert len(edges_of_checkpoint(vae[0])) == 110


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    model = grn_vae()
    with torch.no_grad():
        model.weight[3, 4] = torch.nan
    with pytest.raises(UserError, match=r"weights that are not finite.*smaller training\.learning_rate"):
        edges_of_checkpoint(saved(tmp_path, model), k=3)
