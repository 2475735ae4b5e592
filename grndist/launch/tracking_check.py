"""Whether the place where a run is logged answers. Nothing is written there, and MLflow is not imported."""

import socket
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from grndist.launch.checks import Check, ok, problem, skipped
from grndist.storage import is_remote
from grndist.tracking import TrackingConfig

SECONDS_TO_ANSWER = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DRIVER_LOGS = "written by the process that starts the run, alone"


def tracking(config: TrackingConfig, runs: str) -> Check:
    """A server must answer, a database's port be open, an SQLite file be one."""
    uri = config.uri or ("" if is_remote(runs) else f"sqlite:///{Path(runs).absolute() / 'mlflow.db'}")
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if config.kind == "none":
        return skipped("tracking", "tracking.kind=none")
    if not uri:
        return ok("tracking", f"runs={runs} is a URL, so mlflow.db is in the folder where the run is started")
    if scheme == "sqlite":
        return _sqlite(uri)
    if scheme in ("http", "https"):
        return _server(uri)
    return _port(uri, PORTS[scheme]) if scheme in PORTS else skipped("tracking", f"{uri}: not looked at")


def _sqlite(uri: str) -> Check:
    path = Path(uri.partition(":///")[2])
    if not path.exists():
        return ok("tracking", f"{uri}: made by the first run, {DRIVER_LOGS}")
    try:
        sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("SELECT count(*) FROM sqlite_master").close()
    except sqlite3.Error as error:
        return problem("tracking", f"{uri}: {error}", "move that file away, or give another tracking.uri")
    return ok("tracking", f"{uri}: {DRIVER_LOGS}")


def _server(uri: str) -> Check:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and check the server's --allowed-hosts"
            return _asks_for_more(uri, error.code, remedy)
        return problem("tracking", f"{uri}: HTTP status {error.code} at /health", "give the URI of an MLflow server")
    except (urllib.error.URLError, OSError) as error:
        return _silent(uri, getattr(error, "reason", error))
    return ok("tracking", f"{uri}: answers")


def _asks_for_more(uri: str, status: int, remedy: str) -> Check:
    return problem("tracking", f"{uri}: refused (HTTP status {status})", remedy)


def _port(uri: str, usual: int) -> Check:
    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname or "localhost", parts.port or usual), SECONDS_TO_ANSWER).close()
    except OSError as error:
        return _silent(uri, error)
    return ok("tracking", f"{uri}: its port is open; {DRIVER_LOGS}")


def _silent(uri: str, why: object) -> Check:
    remedy = "start it, or correct tracking.uri; a run goes on without it, and what it logs waits in its tracking-spool"
    return problem("tracking", f"{uri}: no answer ({why})", remedy)
