"""What can be said of a cluster before anything is started, and what a connection leaves alone."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from grndist.cli import networks
from grndist.errors import UserError
from grndist.launch.connection import ClusterError, connected, refuse_unusable
from grndist.runs.stopping import collected
from tests.launch.runs_on_ray import run_file, until


def closed_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("head", "head: the address of a cluster's head was expected, HOST:6379, or local"),
        ("head:", "HOST:6379, or local"),
        ("http://head:8265", "to reach it through its job server, use grndist submit"),
    ],
)
def test_what_is_no_address_is_refused(address: str, message: str):
    with pytest.raises(ClusterError, match=message):
        refuse_unusable(address)


@pytest.mark.parametrize("address", ["", "auto", "local"])
def test_where_ray_looks_by_itself_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refuse_unusable(address)


def test_a_run_that_cannot_have_its_cluster_leaves_nothing_behind(tmp_path: Path, pristine_store: Path):
    with pytest.raises(UserError, match="no Ray cluster answers there"):
        networks.train(run_file(tmp_path, pristine_store), address=f"127.0.0.1:{closed_port()}")
    assert not (tmp_path / "runs").exists()


def test_without_ray_a_run_says_how_to_get_it(tmp_path: Path, pristine_store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed; pip install 'grndist\[cluster\]'"):
        networks.train(run_file(tmp_path, pristine_store))
    assert not (tmp_path / "runs").exists()


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its start and its end
def test_a_driver_that_is_asked_to_end_decides_itself_how():
    """Ray sets a handler of SIGTERM that exits at once, without the last checkpoint."""
    pytest.importorskip("ray")
    with collected() as signals, connected("local"):
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: bool(signals), 10)
    assert signals == [signal.SIGTERM]
