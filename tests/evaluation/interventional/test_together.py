"""Many networks against one atlas, and `grndist evaluate --atlas`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grndist.data.store import Store, open_store
from grndist.data.view import whole
from grndist.evaluation.interventional import OmissionConfig, curve, curves_of, effects_of, write_atlas
from grndist.evaluation.interventional.together import chance
from grndist.evaluation.many import Named
from grndist.networks.edges import edge_list
from grndist.networks.io import write_edges
from tests.evaluation.interventional.test_score_edges import NAMES, network
from tests.test_bad_input import refused_without_a_trace
from tests.test_cli import done


def test_every_network_has_its_curve_beside_chance(store: Store):
    atlas, short = effects_of(whole(store)), network(["g3"], NAMES)
    networks = [Named("long", network(["g1", "g3", "g5"], NAMES), "long.tsv"), Named("short", short, "short.tsv")]
    found = curves_of(networks, atlas, [5, 15])
    assert found.table["network"].tolist() == ["long", "long", "short", "short", "random", "random"]
    own = found.table[found.table["network"] == "short"].drop(columns=["network", "baseline"]).reset_index(drop=True)
    expected = curve(atlas, short, [5, 15], omission=OmissionConfig(pairs=None))
    pd.testing.assert_frame_equal(own, expected, check_like=True)
    assert set(found.flat("short")) == {
        f"{name} at 5" for name in ("mean_wasserstein", "rank_sum_precision", "false_omission_rate")
    }
    assert "short, K 15: only 11 of the network's 11 edges are testable" in found.render()
    assert json.loads(found.to_json())["networks"] == {"long": "long.tsv", "short": "short.tsv"}


def test_chance_is_the_mean_over_all_pairs(store: Store):
    atlas = effects_of(whole(store))
    edges = network(list(atlas.regulators), NAMES)
    every = curve(atlas, edges, [len(edges)], omission=OmissionConfig(pairs=None)).iloc[0]
    found = chance(atlas, [len(edges)]).iloc[0]
    assert found["mean_wasserstein"] == pytest.approx(every["mean_wasserstein"], rel=1e-12)
    assert found["rank_sum_precision"] == found["false_omission_rate"] == every["rank_sum_precision"]
    assert np.isnan(every["false_omission_rate"])  # no pair is left out by all of them


def test_networks_are_scored_from_the_command_line(tmp_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_atlas(tmp_path / "a.effects.zarr", whole(open_store(str(store_path))))
    write_edges(network(["g1", "g3"], NAMES), Path("one.tsv"))
    write_edges(edge_list(["g3", "g1"], ["g2", "g4"], np.array([2.0, 1.0])), Path("two.tsv"))
    printed = done("evaluate one.tsv two.tsv --atlas a.effects.zarr -o held_out.json")
    table = pd.read_parquet("held_out.parquet")
    assert set(table["network"]) == {"one", "two", "random"}
    assert table.set_index(["network", "K"])["mean_wasserstein"].notna().loc[("one", 22)]
    assert Path("held_out.png").read_bytes().startswith(b"\x89PNG")
    assert "next: look at held_out.png" in printed
    line = "evaluate one.tsv --atlas a.effects.zarr"
    refused_without_a_trace(f"{line} -o held_out.json", "held_out.json exists already", "--overwrite")
    refused_without_a_trace(f"{line} --reference two.tsv", "--reference NETWORK.tsv, or --atlas EFFECTS.zarr")
    refused_without_a_trace("evaluate one.tsv", "say what to compare with")
    refused_without_a_trace("evaluate one.tsv --atlas none.zarr -o x.json", "none.zarr: no effect atlas is there")
