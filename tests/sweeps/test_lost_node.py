"""A machine that is lost in the middle of a sweep: its trial goes on elsewhere, to the same end."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grndist.sweeps.config import load_sweep
from grndist.sweeps.ledger import Ledger
from grndist.sweeps.trial import Order, run_trial
from tests.launch.runs_on_ray import step_of, until
from tests.sweeps.sweep_files import sweep_file

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own, of its start and its end

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
SLOW = {"model": {"embedding": 500}, "training": {"steps": 150, "checkpoint_every": 10, "cells_per_step": 300}}
SPACE = {"training.learning_rate": {"loguniform": [1e-5, 1e-4]}}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two machines of one CPU each, played by this one."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        found.node_of_the_test = found.add_node(**NODE)
        yield found
    finally:
        found.shutdown()


def test_trials_of_a_lost_machine_go_on_elsewhere(tmp_path: Path, store_path: Path, cluster: Any):
    file = sweep_file(tmp_path, store_path, run=SLOW, space=SPACE, budget={"trials": 3})
    ledger, log = Ledger(tmp_path / "sweeps" / "s"), tmp_path / "said.log"
    command = [sys.executable, "-m", "grndist.cli", "sweep", str(file), "--address", cluster.address]
    with log.open("w") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        until(lambda: driver.poll() is not None or all(step_of(ledger.runs(n) / "seed-0") > 0 for n in range(2)))
        assert driver.poll() is None, log.read_text()
        cluster.remove_node(cluster.node_of_the_test, allow_graceful=False)
        until(lambda: driver.poll() is not None, 600)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, log.read_text()
    assert [trial.status for trial in ledger.trials()] == ["finished"] * 3, log.read_text()
    alone = Order(load_sweep(file, {"name": "alone"}))
    for trial in ledger.trials():
        alone.ledger.write(type(trial)(trial.number, trial.settings))
        run_trial(alone, trial.number, lambda look: None)
        assert alone.ledger.trial(trial.number).values == trial.values
