"""Real stores that can be killed and started again: an MLflow server, and a PostgreSQL server of our own."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

from tests.tracking.conftest import closed_port

SECONDS_TO_START = 120


class Store(Protocol):
    """Where MLflow keeps runs."""

    uri: str

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""

    def kill(self) -> None:
        """End it without warning."""


class MLflowServer:
    """`mlflow server` on a loopback port, with SQLite."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, closed_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1",
        ]  # fmt: skip
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True
            )
        wait_for(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True


class PostgreSQL:
    """A cluster of our own in `folder`, on a loopback port; root starts it as the user postgres."""

    def __init__(self, folder: Path):
        self.data, self.port = folder / "data", closed_port()
        self.uri = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._user:
            about = pwd.getpwnam("postgres")
            os.chown(folder, about.pw_uid, about.pw_gid)
        self._run("initdb", "-D", str(self.data), "-U", "tester", "--auth=trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def kill(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        found = postgres_program(program)
        assert found is not None
        subprocess.run([*self._user, found, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL)


def postgres_program(name: str) -> str | None:
    """Where a program of PostgreSQL's server is; Debian does not put them on the PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else shutil.which(name)


def wait_for(is_so: object, seconds: float = SECONDS_TO_START) -> None:
    """Look now and then until it is so; whoever waits longer is told."""
    assert callable(is_so)
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
