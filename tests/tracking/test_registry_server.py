"""The registry on a real MLflow server, which hands files out itself or leaves them in a folder that all can see."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.test_cli import done, grndist
from tests.tracking.networks import DAZZLE, UNTRACKED, small_store, trained

pytestmark = pytest.mark.slow
SECONDS_TO_START = 120


@pytest.fixture(scope="module", params=["proxied", "shared folder"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    artifacts = {
        "proxied": ["--artifacts-destination", str(folder / "artifacts")],
        "shared folder": ["--no-serve-artifacts", "--default-artifact-root", (folder / "artifacts").as_uri()],
    }
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", *artifacts[request.param]]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        _await(uri, process, folder / "log")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(uri: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"the server has not started:\n{log.read_text()}")


@pytest.fixture
def here(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One stands in a folder with a store, and the environment names the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    small_store(tmp_path)
    return server


def test_the_round_trip(here: str, tmp_path: Path):
    trained(tmp_path, "first", DAZZLE, f"tracking.uri={here}")
    trained(tmp_path, "apart", DAZZLE | UNTRACKED, "training.seed=7")
    done("infer runs/first --all")
    done("evaluate runs/first/edges.parquet --reference small.network.tsv")

    assert "logged before" in done("models register runs/first --name grn --alias champion")
    assert "was registered before" in done("models register runs/first --name grn")
    printed = done(f"models register runs/apart --name grn --tracking-uri {here}")
    assert "logged now, in a new run" in printed
    assert "models:/grn/2 is registered" in printed
    (row,) = [line for line in done("models list").splitlines() if line.startswith("grn ")]
    assert row.split()[:5] == ["grn", "2", "champion", "at", "1"]
    assert "DAZZLE EPR" in done("models show grn@champion")

    for number, run in ((1, "first"), (2, "apart")):
        done(f"models promote grn {number}")
        for name, source in (
            ("run", f"runs/{run}"),
            ("alias", "models:/grn@champion"),
            ("number", f"models:/grn/{number}"),
        ):
            done(f"infer {source} --all -o {name}.parquet --overwrite")
        same = Path("run.parquet").read_bytes()
        assert Path("alias.parquet").read_bytes() == same == Path("number.parquet").read_bytes()

    printed = done("models compare models:/grn/1 runs/apart")
    assert "data: the same store" in printed
    assert "  training.seed: 0, 7" in printed

    done("models pull grn/1 -o pulled")
    pd.testing.assert_frame_equal(pd.read_parquet("pulled/edges.parquet"), pd.read_parquet("runs/first/edges.parquet"))
    done("infer pulled -k 4 -o four.tsv")

    program = (
        "import mlflow, sys; print(mlflow.pyfunc.load_model(sys.argv[1]).predict(None, params={'k': 4}).to_json())"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, "models:/grn/1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert list(json.loads(said)["target"].values()) == list(pd.read_csv("four.tsv", sep="\t")["target"])


def test_mistakes_are_one_message(here: str, tmp_path: Path):
    trained(tmp_path, "run", DAZZLE, f"tracking.uri={here}")
    done("models register runs/run --name mistakes --alias one")
    for line, words in {
        "infer models:/nothing@one -o e.tsv": "no network called 'nothing' is registered at http",
        "infer models:/mistakes@two -o e.tsv": "mistakes has no alias two; its versions are 1, its aliases one at 1",
        "models promote mistakes 5": "mistakes has no version 5",
        "models register runs/run --name mistakes --alias latest": "'latest' alias name",
    }.items():
        said = grndist(line)
        assert (said.status, said.out) == (2, "")
        assert words in said.err
        assert said.err.count("\n") == 1
