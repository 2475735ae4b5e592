"""A worker that cannot begin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from grndist.runs.worker import Line, Order, work
from grndist.runs.workplace import RunError
from grndist.training.distributed import Group
from tests.launch.runs_on_ray import config_of


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield Group()
    dist.destroy_process_group()


def test_a_run_directory_that_is_on_another_machine_is_one_message(tmp_path: Path, pristine_store: Path, group: Group):
    line = Line(lambda *_: None, lambda _: None, lambda _: None, lambda: False)
    config = config_of(tmp_path, pristine_store, "workers=1")
    with pytest.raises(RunError, match=r"runs/r is not on .*storage that every node mounts at the same path, or"):
        work(Order(config, ""), group, line)
    assert not (tmp_path / "runs").exists()
