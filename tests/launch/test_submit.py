import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from grndist.cli.options import of_workers
from grndist.launch import jobs
from grndist.launch.connection import ClusterError
from grndist.launch.jobs import JobServer, Standing, Unseen
from grndist.launch.submit import Job, SubmitError, entrypoint, job_of, submit, summary
from grndist.runs import load_run, presets
from grndist.storage import StorageError

RUN = {"preset": "dazzle", "store": "/shared/a.zarr", "runs": "/shared/runs"}


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    return written(tmp_path / "small.yaml", RUN)


def written(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


# --- what is sent ---


@pytest.mark.parametrize("preset", presets())
def test_the_run_that_arrives_is_the_run_that_was_sent(tmp_path: Path, run_file: Path, preset: str):
    overrides = [f"preset={preset}", "name=a.b", *of_workers("2..3", None)]
    there = written(tmp_path / "there.yaml", yaml.safe_load(job_of(run_file, overrides).run_file))
    assert load_run(there, []) == load_run(run_file, overrides)


def test_a_run_without_a_preset_can_be_sent(tmp_path: Path):
    here = written(tmp_path / "a.yaml", {"model": {"kind": "catran"}, "store": "s3://b/a.zarr", "runs": "/shared/runs"})
    there = written(tmp_path / "there.yaml", yaml.safe_load(job_of(here, []).run_file))
    assert load_run(there, []) == load_run(here, [])


def test_a_job_finds_the_cluster_that_runs_it(run_file: Path):
    sent = yaml.safe_load(job_of(run_file, of_workers("2", "10.0.0.1:6379")).run_file)
    assert sent["workers"]["address"] == ""
    assert sent["workers"]["min"] == sent["workers"]["max"] == 2


@pytest.mark.parametrize(
    ("preflight", "resume", "command"),
    [
        (True, False, "grndist preflight run.yaml && exec grndist train run.yaml"),
        (False, True, "exec grndist train run.yaml --resume"),
    ],
)
def test_the_command_of_a_job(preflight: bool, resume: bool, command: str):
    assert entrypoint(preflight, resume) == command


def test_a_job_is_named_after_its_run(run_file: Path):
    assert job_of(run_file, ["name=k562.v2"]).name.startswith("k562.v2-20")


@pytest.mark.parametrize(
    "override",
    [
        "store=a.zarr",
        "runs=runs",
        "genes.keep=a.txt",
        "genes.regulators=lists/tf.txt",
        "causalbench.summary.file=summary.xlsx",
    ],
)
def test_a_path_of_this_machine_is_refused(tmp_path: Path, override: str):
    key, _, path = override.partition("=")
    whole = RUN | ({"causalbench": {"summary": {"file": "/shared/s.xlsx"}}} if "causalbench" in key else {})
    with pytest.raises(SubmitError, match=f"{key}={path} is relative.*give {key}=/PATH"):
        job_of(written(tmp_path / "a.yaml", whole), [override])


def test_the_run_root_has_to_be_said(tmp_path: Path):
    with pytest.raises(SubmitError, match="runs=runs is relative"):
        job_of(written(tmp_path / "a.yaml", {"preset": "dazzle", "store": "/shared/a.zarr"}), [])


def test_a_password_in_a_url_is_not_sent(run_file: Path):
    with pytest.raises(StorageError, match="put credentials") as caught:
        job_of(run_file, ["store=s3://me:hunter2@bucket/a.zarr"])
    assert "hunter2" not in str(caught.value)


def test_a_database_that_would_be_lost_with_the_job_is_refused(run_file: Path):
    remote = ["runs=s3://bucket/runs"]
    with pytest.raises(SubmitError, match=r"lost with it; give tracking\.uri"):
        job_of(run_file, remote)
    assert job_of(run_file, [*remote, "tracking.kind=none"])
    assert job_of(run_file, [*remote, "tracking.uri=http://server:5000"])


# --- the log ---


@given(st.text(), st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=5))
def test_every_letter_of_a_log_is_shown_once_however_often_the_connection_breaks(text: str, tries: list[list[int]]):
    shown: list[str] = []
    log = Unseen(shown.append)
    for sizes in [*tries, [len(text)]]:
        log.begin()
        at = 0
        for size in sizes:
            log.add(text[at : at + size])
            at += size
    assert "".join(shown) == text


# --- the job server ---

Answer = tuple[int, str]


@contextmanager
def server(answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """A web server on this machine that answers (method, path); yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            status, text = answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_PUT = do_GET  # noqa: N815 - as http.server wants them

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


@pytest.fixture(autouse=True)
def _no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # it is put back after the test
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")


VERSION = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (401, "Unauthorized: Missing authentication token", "wants a token; set RAY_AUTH_MODE=token"),
        (403, "Forbidden: Invalid authentication token", "has another token; set RAY_AUTH_MODE=token"),
        (200, "<html>a wiki</html>", "is that the address of Ray's job server"),
        (404, "nothing here", "is that the address of Ray's job server"),
        (200, "{}", "is that the address of Ray's job server"),
    ],
)
def test_a_server_that_will_not_do_is_one_message(status: int, text: str, message: str):
    pytest.importorskip("ray")
    with server(lambda method, path: (status, text)) as address, pytest.raises(ClusterError, match=message):
        JobServer(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9", "nobody answers there"),
        ("10.0.0.1:6379", "http://HEAD:8265"),
        ("ray://10.0.0.1:10001", "http://HEAD:8265"),
        ("https://", "http://HEAD:8265"),
    ],
)
def test_an_address_where_no_server_can_be(address: str, message: str):
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match=message):
        JobServer(address)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match="leave user name and password out") as caught:
        JobServer("http://me:hunter2@127.0.0.1:9")
    assert "hunter2" not in str(caught.value)


def test_a_head_without_an_agent_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN", 0.01)
    asked: list[str] = []

    def answer(method: str, path: str) -> Answer:
        if path == "/api/version":
            return 200, VERSION
        if path != "/api/jobs/":
            return (404, "") if method == "GET" else (200, "")
        asked.append(path)
        if len(asked) < 3:
            return 500, "No available agent to submit job, please try again later."
        return 200, json.dumps({"job_id": "a", "submission_id": "a"})

    with server(answer) as address:
        submit(JobServer(address), Job("a", "true", "name: a\n"))
    assert len(asked) == 3


def test_a_head_that_never_has_an_agent_is_given_up(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN", 0.01)
    monkeypatch.setattr(jobs, "SECONDS_FOR_AGENT", 0.05)
    answers = {"/api/version": (200, VERSION), "/api/jobs/": (500, "No available agent to submit job")}
    with (
        server(lambda method, path: answers.get(path, (200, ""))) as address,
        pytest.raises(ClusterError, match="no agent that takes jobs; look at `ray status`"),
    ):
        submit(JobServer(address), Job("a", "true", "name: a\n"))


def test_a_job_that_is_not_there():
    pytest.importorskip("ray")
    answers = {"/api/version": (200, VERSION)}
    with server(lambda method, path: answers.get(path, (404, "Job a-1 does not exist"))) as address:
        there = JobServer(address)
        with pytest.raises(ClusterError, match="knows no job a-1"):
            there.follow("a-1", print)
        with pytest.raises(ClusterError, match="knows no job a-1"):
            there.stop("a-1")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 1)],
)
def test_the_exit_status_is_that_of_the_driver(status: str, code: int | None, expected: int):
    pytest.importorskip("ray")
    about = {"type": "SUBMISSION", "entrypoint": "x", "status": status, "driver_exit_code": code, "message": "so it is"}
    answers = {"/api/version": (200, VERSION), "/api/jobs/a": (200, json.dumps(about))}
    with server(lambda method, path: answers[path]) as address:
        standing = JobServer(address).standing("a")
    assert standing == Standing(status, "so it is", expected)
    assert standing.is_over


def test_what_to_do_where_the_cluster_has_no_grndist():
    assert "install it there" in summary("a", Standing("FAILED", "exited with 127", 127))


def test_the_address_that_was_given_wins_over_the_environment():
    pytest.importorskip("ray")
    with server(lambda method, path: (200, VERSION)) as address:
        JobServer(address)
        assert os.environ["RAY_API_SERVER_ADDRESS"] == address
