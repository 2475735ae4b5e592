from pathlib import Path

import pytest
import yaml

from grndist.benchmarks.comparison.config import load_benchmark
from grndist.benchmarks.comparison.drive import run_benchmark
from grndist.config import ConfigError, Tree, read_tree
from grndist.errors import UserError
from tests.benchmarks.comparison.conftest import benchmark_file
from tests.test_cli import grndist

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"correlation": "corelation"}}, "there is no such baseline; choose one of random, correlation"),
        ({"methods": {"x": {"baseline": "pidc", "run": {}}}}, "give a baseline, or a run"),
        ({"methods": {"x": {}}}, "give a baseline, or a run"),
        ({"methods": {"x": {"run": {"preset": "papers"}}}}, "methods.x on screen: there is no preset 'papers'"),
        ({"methods": {"x": {"run": {"preset": "paper", "training": {"epoch": 5}}}}}, "did you mean 'training.epochs'?"),
        ({"methods": {"CaTran": {"skip": {"screan": "long"}}}}, "'screan', which is not among screen, atlas"),
        ({"methods": {"a/b": "pidc"}}, "the name 'a/b' also names a folder"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"data_sets": {"x": {"kind": "files", "sources": ["m.csv"]}}}, "neither references nor interventions"),
        (
            {"data_sets": {"x": {"kind": "files", "sources": ["m.csv"], "references": {"STRING": "n.tsv"}}}},
            "m.csv is not there; say where the data are: data=FOLDER",
        ),
        ({"data_sets": {"screen": {"cells": {"split": ["train"]}}}}, "remove cells.split"),
        ({"data_sets": {"screen": {"simulation": {"gene": 3}}}}, "did you mean"),
        ({"data_sets": {"screen": {"kind": "sim"}}}, "'store', 'files', 'simulation', 'gene_net_weaver', 'sergio'"),
        ({"shown": []}, "unknown key"),
    ],
)
def test_mistakes_in_the_file_are_said_before_anything_is_done(changes: Tree, message: str, tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        load_benchmark(benchmark_file(tmp_path), changes)
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_no_such_file_is_one_message():
    said = grndist("benchmark none.yaml")
    assert said.status == 2
    assert "none.yaml: no such file" in said.err


def test_a_damaged_cell_is_named(tmp_path: Path):
    file = benchmark_file(tmp_path)
    tree = read_tree(file) | {"seeds": [0], "methods": {"random": "random"}}
    tree["data_sets"] = {"atlas": tree["data_sets"]["atlas"]}
    file.write_text(yaml.safe_dump(tree))
    run_benchmark(file, {})
    cell = tmp_path / "out/cells/atlas/random/seed0.json"
    cell.write_text(cell.read_text()[:40])
    with pytest.raises(UserError, match=r"seed0.json is damaged .*; delete it, and the same command computes it again"):
        run_benchmark(file, {})


def test_the_quick_benchmark_is_valid():
    config = load_benchmark(CONFIGS / "benchmark_quick.yaml", {})
    assert len(config.methods) == 10


def test_the_whole_benchmark_is_valid_where_the_data_are(data_dir: Path):
    config = load_benchmark(CONFIGS / "benchmark.yaml", {"data": str(data_dir)})
    assert set(config.data_sets) == {
        "mDC", "hESC", "DREAM4", "SERGIO DS4", "SERGIO DS6", "Papalexi", "simulated 50", "simulated 100",
        "simulated 300",
    }  # fmt: skip
