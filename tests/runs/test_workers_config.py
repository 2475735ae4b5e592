"""How many workers a run file and the command line ask for."""

from pathlib import Path

import pytest
import yaml

from grndist.cli.options import of_workers
from grndist.config import ConfigError
from grndist.errors import UserError
from grndist.runs import load_run
from grndist.runs.config import WorkersConfig


def workers(folder: Path, given: object, *overrides: str) -> WorkersConfig | None:
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump({"preset": "paper", "store": "s.zarr", "workers": given}))
    return load_run(file, list(overrides)).workers


def test_none_unless_asked_for(tmp_path: Path):
    assert workers(tmp_path, None) is None
    assert workers(tmp_path, 4, "workers=null") is None


@pytest.mark.parametrize(
    ("given", "overrides", "wanted"),
    [
        (4, [], (4, 4)),
        ({"min": 2, "max": 8}, [], (2, 8)),
        ({"max": 8}, [], (8, 8)),
        (4, ["workers.start_timeout=5"], (4, 4)),
        ({"min": 2, "max": 8, "start_timeout": 5}, ["workers=3"], (3, 3)),
        ({"min": 2, "max": 2}, ["workers=3", "workers.start_timeout=5"], (3, 3)),
        (None, of_workers("3", None), (3, 3)),
        (None, of_workers("2..8", "local"), (2, 8)),
        (4, of_workers("2-8", None), (2, 8)),
        (4, of_workers(None, "local"), (4, 4)),
    ],
)
def test_a_number_or_a_range(tmp_path: Path, given: object, overrides: list[str], wanted: tuple[int, int]):
    found = workers(tmp_path, given, *overrides)
    assert found is not None
    assert (found.min, found.max) == wanted
    assert found.is_elastic == (wanted[0] < wanted[1])
    if "workers.start_timeout=5" in overrides:
        assert found.start_timeout == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, r"workers.min: Input should be greater than 0 \(got 0\)"),
        ({"min": 3, "max": 2}, "min=3 is more than max=2; give workers=N, or min and max"),
        ({"min": 1, "gpus_per_worker": 1}, "training.device=cpu and workers.gpus_per_worker=1 do not go together"),
        ("two", "workers"),
        ({"cpus": 2}, "unknown key"),
    ],
)
def test_what_is_no_number_of_workers(tmp_path: Path, given: object, message: str):
    with pytest.raises(ConfigError, match=message):
        workers(tmp_path, given)


def test_every_worker_has_a_stream(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"training.streams=2 are dealt to as many workers.*streams=4 or more"):
        workers(tmp_path, 4, "training.streams=2")


@pytest.mark.parametrize("given", ["two", "-1", "2..", "1.5", ""])
def test_an_option_that_is_neither_a_number_nor_two(given: str):
    with pytest.raises(UserError, match=f"--workers {given}: a number was expected"):
        of_workers(given, None)
