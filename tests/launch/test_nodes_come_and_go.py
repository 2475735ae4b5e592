"""Machines that are lost and added, and the process that started the run killed: it ends as an undisturbed one does."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grndist.runs import train_run
from tests.launch.runs_on_ray import apart, config_of, run_file, same_bits, step_of, until

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own, of its start and its end

LONG = ["training.steps=800", "training.checkpoint_every=100"]
SLOW = ["model.embedding=1000", "training.steps=600", "training.cells_per_step=300", "training.learning_rate=1e-6"]
ELASTIC = ["workers.min=1", "workers.max=3", "workers.resize_every=5", "workers.start_timeout=30"]
FIXED = ["training.steps=100000", "workers=3", "workers.start_timeout=10", "workers.controller_failure_limit=1"]
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three machines of one CPU each, played by this one."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        found.nodes_of_the_test = [found.add_node(**NODE) for _ in range(2)]
        yield found
    finally:
        found.shutdown()


@pytest.fixture
def started(cluster: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`grndist train FILE ...` in a process of its own, which says what it has to say in said.txt beside the file."""
    processes = []

    def start(file: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "grndist.cli", "train", str(file), "--address", cluster.address, *arguments]
        with (file.parent / "said.txt").open("w") as said:
            processes.append(subprocess.Popen(command, stderr=said, stdout=said, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def said(file: Path) -> str:
    return (file.parent / "said.txt").read_text()


def sizes(file: Path) -> list[int]:
    """Numbers of workers that have begun, as the run has said them."""
    return [int(number) for number in re.findall(r"^(\d) workers? from step", said(file), re.MULTILINE)]


def test_machines_come_and_go(tmp_path: Path, pristine_store: Path, cluster: Any, started: Callable[..., Any]):
    """Of three machines one is lost and one added; and a run that needs the one that is lost says so."""
    alone = train_run(config_of(tmp_path, pristine_store, *SLOW, "name=alone", "workers=null"))
    file, run = run_file(tmp_path, pristine_store), tmp_path / "runs" / "elastic"
    driver = started(file, *SLOW, *ELASTIC, "name=elastic")
    until(lambda: step_of(run) > 0)
    cluster.remove_node(cluster.nodes_of_the_test.pop(), allow_graceful=False)
    until(lambda: sizes(file)[-1:] == [2])
    at = step_of(run)
    until(lambda: step_of(run) > at)
    cluster.nodes_of_the_test.append(cluster.add_node(**NODE))
    assert driver.wait() == 0, said(file)
    assert sizes(file) == [3, 2, 3]
    assert apart(alone.checkpoint, run / "checkpoints" / "step-00000600") < 1e-4

    driver = started(file, *FIXED, "name=fixed")
    until(lambda: step_of(tmp_path / "runs" / "fixed") > 0)
    cluster.remove_node(cluster.nodes_of_the_test.pop(), allow_graceful=False)
    assert driver.wait() == 2
    assert re.search(r"needs 3 workers of 1 CPUs each; the cluster has room for 2.*--workers 1\.\.3", said(file))
    assert "Traceback" not in said(file)


def test_whoever_started_the_run_is_killed(tmp_path: Path, pristine_store: Path, started: Callable[..., Any]):
    file, runs = run_file(tmp_path, pristine_store), tmp_path / "runs"
    assert started(file, *LONG, "name=undisturbed").wait() == 0, said(file)
    driver = started(file, *LONG, "name=killed")
    until(lambda: step_of(runs / "killed") >= 100)
    driver.kill()
    driver.wait()
    assert started(file, *LONG, "name=killed").wait() == 2
    assert "exists already; go on with --resume" in said(file)
    assert started(file, *LONG, "name=killed", "--resume").wait() == 0, said(file)
    assert int(re.findall(r"^2 workers from step (\d+)", said(file), re.MULTILINE)[0]) >= 100
    last = "checkpoints/step-00000800"
    assert same_bits(runs / "killed" / last, runs / "undisturbed" / last)
