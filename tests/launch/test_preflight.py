from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from grndist.launch.checks import exit_status
from grndist.launch.nodes import Failure
from grndist.launch.preflight import Tried, costs, duration, preflight
from grndist.runs import RunConfig, load_run
from grndist.runs.probe import Probe

GIB = 2**30
SEEN = Probe(
    workers=2, n_cells=1000, n_genes=50, steps=7200, steps_per_epoch=100, pilot_steps=0, seconds_to_prepare=10.0,
    seconds_per_step=0.5, peak_memory=3 * GIB, device_memory=0, known_memory=0,
)  # fmt: skip


def run(tmp_path: Path, store: Path, *overrides: str) -> RunConfig:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"preset": "dazzle", "store": str(store), "runs": str(tmp_path / "runs")}))
    return load_run(path, ["tracking.kind=none", "training.threads=1", *overrides])


def test_a_run_in_this_process_is_tried_out_and_leaves_nothing(tmp_path: Path, store_path: Path):
    lines = list(preflight(run(tmp_path, store_path)))
    assert [(line.what, line.state) for line in lines] == [
        ("workers", "--"), ("store", "ok"), ("run root", "ok"), ("tracking", "--"), ("memory", "ok"), ("time", "ok"),
    ]  # fmt: skip
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_store_that_is_not_there_is_not_probed(tmp_path: Path):
    lines = list(preflight(run(tmp_path, tmp_path / "none.zarr")))
    assert [line.what for line in lines if line.state == "problem"] == ["store"]
    assert "time" not in [line.what for line in lines]
    assert exit_status(lines) == 2


def test_what_training_would_refuse_is_a_problem(tmp_path: Path, store_path: Path):
    lines = list(preflight(run(tmp_path, store_path, "training.device=cuda")))
    assert lines[-1].what == "probe"
    assert "set training.device=cpu" in lines[-1].remedy


def test_memory_is_that_of_all_workers_of_a_machine(tmp_path: Path, store_path: Path):
    config = run(tmp_path, store_path, "workers=2")
    assert costs(config, Tried(SEEN, free=7 * GIB, sharing=2))[0].state == "ok"
    line = costs(config, Tried(SEEN, free=7 * GIB, sharing=3))[0]
    assert line.state == "problem"
    assert "3.00 GiB" in line.found
    assert "7.00 GiB were free for 3" in line.found


def test_moments_of_which_only_a_part_was_summed_count_whole(tmp_path: Path, store_path: Path):
    seen = replace(SEEN, seconds_per_step=0.0, known_memory=9 * GIB)
    assert costs(run(tmp_path, store_path), Tried(seen, free=8 * GIB))[0].state == "problem"


def test_the_time_of_a_step_an_epoch_and_the_run(tmp_path: Path, store_path: Path):
    text = costs(run(tmp_path, store_path, "workers=2"), Tried(SEEN, 9 * GIB))[-1].found
    assert "10 s to begin, then 0.5 s a step of one of 2 workers" in text
    assert "an epoch of 100 steps 50 s" in text
    assert "the run of 7,200 steps 60.2 min" in text


def test_a_worker_that_gave_no_answer_is_a_problem(tmp_path: Path, store_path: Path):
    (line,) = costs(run(tmp_path, store_path), Failure("no answer within 5 s"))
    assert line.state == "problem"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01234, "0.0123 s"), (100.0, "100 s"), (300.0, "5.0 min"), (7200.0, "2.0 h"), (4e5, "4.6 days")],
)
def test_durations_have_the_unit_that_suits_them(seconds: float, text: str):
    assert duration(seconds) == text
