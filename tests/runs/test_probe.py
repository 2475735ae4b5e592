from pathlib import Path

import pytest
import yaml

from grndist.errors import UserError
from grndist.runs import RunConfig, load_run
from grndist.runs.probe import probe


def run(tmp_path: Path, store: Path, preset: str, *overrides: str) -> RunConfig:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"preset": preset, "store": str(store), "runs": str(tmp_path / "runs")}))
    return load_run(path, ["tracking.kind=none", "training.threads=1", *overrides])


@pytest.mark.parametrize("preset", ["dazzle", "paper"])
def test_a_few_real_steps_and_nothing_left_behind(tmp_path: Path, store_path: Path, preset: str):
    config = run(tmp_path, store_path, preset, "training.epochs=7", "training.steps=null", "training.cells_per_step=60")
    found = probe(config, steps=2)
    assert (found.n_cells, found.n_genes, found.steps_per_epoch, found.steps) == (300, 12, 5, 35)
    assert found.seconds_per_step > 0
    assert found.seconds >= found.seconds_to_prepare + 35 * found.seconds_per_step
    assert found.peak_memory > 50 * 2**20
    assert not (tmp_path / "runs").exists()


def test_held_out_cells_are_not_among_those_to_train_on(tmp_path: Path, store_path: Path):
    found = probe(run(tmp_path, store_path, "dazzle", "training.validation=0.2"), steps=1)
    assert found.n_cells == 240


def test_pilots_are_counted(tmp_path: Path, store_path: Path):
    config = run(tmp_path, store_path, "dazzle", "training.cells_per_step=60", "training.epochs=4")
    chosen = config.model.model_copy(update={"augmentation": "auto", "pilot_epochs": 2})
    found = probe(config.model_copy(update={"model": chosen}), steps=1)
    assert found.pilot_steps == 18 * 0.8 * 2 * 5  # six rates of three seeds, on four fifths of the cells
    assert found.seconds > found.pilot_seconds > 0


def test_of_several_workers_the_first_ones_share_is_tried(tmp_path: Path, store_path: Path):
    config = run(tmp_path, store_path, "dazzle", "workers=3")
    found = probe(config, workers=3, steps=1)
    assert found.workers == 3
    assert found.seconds_per_step > 0


def test_moments_are_summed_over_a_part_of_the_cells_only(tmp_path: Path, store_path: Path):
    found = probe(run(tmp_path, store_path, "catran_d"))
    assert found.seconds_to_prepare > 0
    assert found.known_memory > 0
    assert (found.seconds_per_step, found.steps_per_epoch) == (0, 0)


def test_a_run_that_cannot_be_is_refused_as_training_refuses_it(tmp_path: Path, store_path: Path):
    with pytest.raises(UserError, match=r"training\.device=cuda"):
        probe(run(tmp_path, store_path, "dazzle", "training.device=cuda"))
