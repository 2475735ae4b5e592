from pathlib import Path

import pytest
import yaml

from grndist.config import ConfigError, parse_overrides, read_tree
from grndist.sweeps.config import load_sweep
from tests.sweeps.sweep_files import sweep_file, sweep_of


def test_a_run_of_a_trial_has_its_settings_and_a_place_of_its_own(tmp_path: Path, store_path: Path):
    sweep = sweep_of(tmp_path, store_path)
    config = sweep.run({"model.embedding": 2, "training.learning_rate": 0.002}, tmp_path / "here", seed=5)
    assert (config.model.embedding, config.training.learning_rate, config.training.seed) == (2, 0.002, 5)
    assert (config.runs, config.name, config.training.threads) == (str(tmp_path / "here"), "seed-5", 1)
    assert config.training.steps == 8
    assert config.store == str(store_path)


def test_the_run_may_be_a_file_beside_the_sweeps(tmp_path: Path, store_path: Path):
    (tmp_path / "run.yaml").write_text(f"preset: dazzle\nstore: {store_path}\n")
    file = sweep_file(tmp_path, store_path)
    file.write_text(
        yaml.safe_dump(read_tree(file) | {"run": "run.yaml", "space": {"model.alpha": {"uniform": [1, 2]}}})
    )
    sweep = load_sweep(file, {})
    assert sweep.base.preset == "dazzle"
    assert sweep.run({"model.alpha": 1.5}, tmp_path, 0).model.alpha == 1.5


def test_the_command_line_changes_one_parameter_of_the_space(tmp_path: Path, store_path: Path):
    file = sweep_file(tmp_path, store_path)
    changes = [
        "space.model.embedding.choice=[16]",
        "space.model.aggregations.integers=[1, 3]",
        "space.model.aggregations.when={model.embedding: 16}",
    ]
    space = load_sweep(file, parse_overrides(changes)).space
    assert (space["model.embedding"].choice, space["model.hidden"].uniform) == ([16], (0.2, 0.9))
    assert space["model.aggregations"].integers == (1, 3)
    assert space["model.aggregations"].when == {"model.embedding": 16}
    replaced = load_sweep(file, parse_overrides(["space.model.embedding.integers=[2, 9]"])).space["model.embedding"]
    assert (replaced.choice, replaced.integers) == (None, (2, 9))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"model.embeding": {"choice": [1]}}}, r"model.embeding=1[\s\S]*did you mean 'model.embedding'"),
        ({"space": {"model.hidden": {"uniform": [0.5, 1.5]}}}, r"model.hidden=1\.[\s\S]*less than 1"),
        ({"space": {"training.seed": {"choice": [1]}}}, "training.seed is the sweep's own"),
        ({"space": {"store": {"choice": ["a"]}}}, "store is the sweep's own"),
        ({"budget": {"trials": None}}, "budget: give trials, hours or both"),
        ({"search": "grid"}, "model.hidden is a range; list its values with grid"),
        ({"search": "tpe", "space": {"model.aggregations": {"grid": [1, 2]}}}, "is a grid; use choice"),
        ({"scheduler": {"kind": "pbt"}}, "kind=pbt needs mutate"),
        ({"scheduler": {"kind": "pbt", "mutate": ["model.width"]}}, "model.width is not in the space"),
        ({"scheduler": {"kind": "asha", "grace": 9}}, "grace=9 is more than looks=4"),
        ({"sapce": {}}, "sapce: unknown key; did you mean 'space'"),
        ({"run": {"training": {"stepz": 3}}}, "training.stepz: unknown key"),
        (
            {"space": {"model.edges": {"choice": ["directed"], "when": {"model.projection": True}},
                       "model.projection": {"choice": [True, False]}}},
            "model.projection stands below it",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, store_path: Path, changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        sweep_of(tmp_path, store_path, **changes)


def test_a_grid_is_tried_whole(tmp_path: Path, store_path: Path):
    space = {"model.hidden": {"choice": [0.3, 0.5]}, "training.learning_rate": {"grid": [0.1, 0.2]}}
    file = sweep_file(tmp_path, store_path)
    tree = {"search": "grid", "budget": {"trials": None}}
    file.write_text(yaml.safe_dump(read_tree(file) | tree | {"space": space}))
    assert load_sweep(file, {}).n_trials == 4
    assert load_sweep(file, {"budget": {"trials": 3}}).n_trials == 3


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("configs/sweep_*.yaml")), ids=lambda f: f.stem)
def test_the_shipped_sweeps_are_valid(file: Path):
    assert load_sweep(file, {}).n_trials == 40
