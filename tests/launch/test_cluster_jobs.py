import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import genes, small_counts

pytestmark = pytest.mark.ray
SECONDS = 240


@dataclass(frozen=True)
class Head:
    """A cluster of one node on this machine that asks for a token."""

    address: str
    job_server: str
    environment: dict[str, str]
    token: str


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return any_socket.getsockname()[1]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    pytest.importorskip("ray")
    pytest.importorskip("aiohttp_cors", reason="the job server needs ray[default]")
    folder = Path(tempfile.mkdtemp(prefix="grndist-ray-", dir="/tmp"))  # sockets have short names
    token, port, dashboard = secrets.token_hex(16), free_port(), free_port()
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        "ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2",
        f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
        f"--object-store-memory={100 * 2**20}", f"--temp-dir={folder / 'ray'}", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        ray = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment, token)
    finally:
        ray.terminate()
        ray.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from grndist.data.ingest.build import write_store

    folder = tmp_path_factory.mktemp("jobs")
    counts, obs = small_counts()
    write_store(folder / "small.zarr", counts, obs, genes(12), "counts", {"name": "made here"})
    tree = {"preset": "dazzle", "store": str(folder / "small.zarr"), "runs": str(folder / "runs"), "name": "small"}
    tree |= {"tracking": {"kind": "none"}, "training": {"epochs": 2, "threads": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    return folder / "run.yaml"


def grndist(head: Head, *words: str | Path, **environment: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    done = subprocess.run(
        ["grndist", *map(str, words)], env=head.environment | environment, text=True, timeout=SECONDS, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert head.token not in done.stdout
    return done.returncode, done.stdout


def listening(head: Head) -> None:
    host, port = head.job_server.removeprefix("http://").split(":")
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError("the job server does not listen")


def test_a_job_from_preflight_to_its_exit_status(head: Head, run_file: Path):
    listening(head)
    status, text = grndist(head, "submit", run_file, "--address", head.job_server)  # at once: it has no agent yet
    assert status == 0, text
    assert "ok       time" in text
    assert "checkpoint:" in text
    assert (run_file.parent / "runs" / "small" / "checkpoints").is_dir()

    status, text = grndist(head, "submit", run_file, "--no-preflight", "--address", head.job_server)
    assert status == 2, text
    assert "exists already; go on with --resume" in text
    assert "failed, exit status 2" in text


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """A shell that starts something in the background has it, and what that starts, ignore Ctrl-C; here it must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_the_job_alone_and_it_can_be_followed_and_stopped(head: Head, run_file: Path, ctrl_c: None):
    listening(head)
    at = ["--address", head.job_server]
    command = ["grndist", "submit", str(run_file), "name=long", "training.epochs=100000", "--no-preflight", *at]
    watching = subprocess.Popen(
        command, env=head.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert watching.stdout is not None
    seen = ""
    for line in watching.stdout:
        seen += line
        if line.startswith("training:"):
            break
    watching.send_signal(signal.SIGINT)
    seen += watching.communicate(timeout=SECONDS)[0]
    assert watching.returncode == 130, seen
    assert "which goes on" in seen
    found = re.search(r"grndist submit --follow (long-\S+)", seen)
    assert found, seen

    status, text = grndist(head, "submit", "--stop", found[1], *at)
    assert (status, "is being stopped" in text) == (0, True)
    status, text = grndist(head, "submit", "--follow", found[1], *at)
    assert status == 1, text
    assert "training:" in text  # the log from its beginning
    assert "is saved; go on with the same command and --resume" in text
    assert f"{found[1]}: stopped" in text


def test_another_token_is_refused_in_one_message(head: Head, run_file: Path, tmp_path: Path):
    listening(head)
    (tmp_path / "token").write_text("f" * 32)
    status, text = grndist(
        head, "submit", run_file, "--address", head.job_server, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")
    )
    assert status == 2
    assert "the cluster has another token" in text
    assert "Traceback" not in text


def test_doctor_asks_every_node(head: Head, run_file: Path):
    listening(head)
    status, text = grndist(head, "doctor", run_file, "--address", head.address)
    assert status == 0, text
    assert "ok       cluster         1 nodes" in text
    assert "ok       same versions" in text
    assert "ok       storage" in text


def test_preflight_on_workers(head: Head, run_file: Path):
    listening(head)
    status, text = grndist(head, "preflight", run_file, "--workers", "2", "--address", head.address)
    assert status == 0, text
    assert "ok       workers         2 workers" in text
    assert "a step of one of 2 workers" in text

    more = ["--workers", "3", "workers.start_timeout=1", "--address", head.address]
    status, text = grndist(head, "preflight", run_file, *more)
    assert status == 2, text
    assert "problem  workers         3 workers" in text
