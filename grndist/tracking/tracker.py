"""The half that never waits: a queue of what to log, and the one thread that hands it to the run in MLflow.

Every method returns at once and never raises; when the store is gone, tracking ends for this run with one warning.
Knows nothing of MLflow itself.
"""

import json
import logging
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from grndist.config import Config
from grndist.storage import is_remote
from grndist.tracking.keys import flat, plain, shortened
from grndist.tracking.mlflow_run import Run, Status, open_run, prepare_mlflow

BATCH_SECONDS = 3.0  # metrics wait at most this long before they are sent
OPEN_SECONDS = 20.0  # `run_id` waits at most this long for a new run's id
CLOSE_SECONDS = 60.0  # `close` waits at most this long for the last uploads
METRICS_HELD = 50_000  # values waiting to be sent; beyond it the oldest are dropped

logger = logging.getLogger(__name__)


class TrackingConfig(Config):
    """Whether and where runs are logged."""

    kind: Literal["mlflow", "none"] = "mlflow"
    uri: str = Field(
        "",
        description="an MLflow server (https://...) or database (sqlite:////absolute/path.db, postgresql://...); empty "
        "means SQLite at <run root>/mlflow.db with the files in <run root>/mlflow-artifacts",
    )
    experiment: str = Field("grndist", min_length=1, max_length=500)

    @field_validator("uri")
    @classmethod
    def _is_usable(cls, uri: str) -> str:
        if uri and not re.match(r"(https?|sqlite|postgresql|mysql|mssql|databricks)\b", uri):
            raise ValueError("give http(s)://server, sqlite:////absolute/path.db or another database's URI")
        if uri.startswith("sqlite") and not re.match(r"sqlite(\+\w+)?:////[^/]", uri):
            raise ValueError("an SQLite path must be absolute, which takes four slashes: sqlite:////home/me/mlflow.db")
        if re.search(r"://[^/@]*:[^/]*@|^https?://[^/]*@|[?&](password|\w*token|\w*key)=", uri):
            raise ValueError(
                "a password or token here would be copied into config.yaml, every checkpoint and MLflow; for a server "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, for PostgreSQL "
                "use ~/.pgpass"
            )
        return uri


def open_tracker(config: TrackingConfig, run_root: Path, run_name: str, run_id: str = "") -> "Tracker":
    """Start a run called `run_name`, or continue the one whose id is `run_id`, without waiting for MLflow's answer.

    Takes the time of `import mlflow`, a second or a few. What goes wrong, now or later, is one warning. If `run_id`
    is not known there (any more), a new run is started and a warning says so.
    """
    if config.kind == "none":
        return Tracker(None, "off (tracking.kind is none)")
    prepare_mlflow()
    root = run_root.resolve()
    uri = config.uri or f"sqlite:///{root / 'mlflow.db'}"
    return Tracker(lambda: open_run(uri, config.experiment, root, run_name, run_id), uri, run_id)


class Tracker:
    """A run's line to MLflow: every method returns at once and never raises; one thread does the work in order."""

    def __init__(self, begin: Callable[[], Run] | None, place: str, run_id: str = ""):
        self._where = [f"MLflow: {place}"]
        self._run_id = run_id
        self._alive = begin is not None
        self._settled = threading.Event()  # opened, or failed to
        self._dropped = 0
        self._metrics: deque[tuple[str, float, int, int]] = deque(maxlen=METRICS_HELD)
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(begin,), name="mlflow", daemon=True)
        if self._alive:
            self._thread.start()

    @property
    def run_id(self) -> str:
        """MLflow's id of this run, waited for briefly; if there is no answer, the id to continue, or empty."""
        if self._alive:
            self._settled.wait(OPEN_SECONDS)
        return self._run_id

    def where(self) -> list[str]:
        """Lines for the summary: where the run is logged and how to look at it."""
        return list(self._where)

    def log_settings(self, resolved: Mapping[str, Any]) -> None:
        """Log the resolved config: every setting as the param `key.path`, and the whole as config.yaml.

        MLflow's params never change: on a continued run the first value stands, and config.yaml is the last one.
        """
        tree = json.loads(json.dumps(resolved, default=plain))
        self._do("the settings", lambda run: run.log_settings(tree))

    def log_dataset(self, name: str, digest: str, where: str | Path) -> None:
        """Log the store, a path or URL, as the training data: MLflow's digest has 36 letters of it, a tag has all."""
        uri = str(where) if is_remote(where) else Path(where).resolve().as_uri()
        self._do("the store's digest", lambda run: run.log_dataset(name, digest, uri))

    def log_metrics(self, step: int, values: Mapping[str, float | int]) -> None:
        """Log numbers of one step; they are sent in batches. MLflow keeps NaN, and infinity as the largest float."""
        now = int(time.time() * 1000)
        if self._alive:
            self._dropped += max(0, len(self._metrics) + len(values) - METRICS_HELD)
            self._metrics.extend((name, float(value), now, int(step)) for name, value in values.items())

    def log_file(self, path: Path, folder: str = "") -> None:
        """Log a file, which must stay as it is until `close`, as an artifact in `folder`."""
        self._do(str(path), lambda run: run.log_file(path, folder))

    def log_model(self, files: Mapping[str, Path], name: str = "network", registered_model_name: str = "") -> None:
        """Log a checkpoint as a model whose prediction is its edge list (see `logged_network`); no pickle is written.

        Args:
            files: the checkpoint's files by their name inside it; they must stay as they are until `close`.
            name: the model's name in the experiment.
            registered_model_name: also make it the next version of this registered model; empty: do not.
        """
        files = {inside: path.resolve() for inside, path in files.items()}
        self._do("the model", lambda run: run.log_model(files, name, registered_model_name))

    def log_scores(self, scores: Mapping[str, Any]) -> None:
        """Log an evaluation: every number as the metric `key.path`, and the whole as scores.json."""
        tree = json.loads(json.dumps(scores, default=plain))
        numbers = {key: value for key, value in flat(tree).items() if type(value) in {int, float}}
        self.log_metrics(0, numbers)
        self._do("scores.json", lambda run: run.log_text(json.dumps(tree, indent=2), "scores.json"))

    def close(self, status: Status = "FINISHED", patience: float = CLOSE_SECONDS) -> None:
        """Send what is left, set the run's status and stop; waits at most `patience` seconds."""
        if not self._alive:
            return
        self._do("the status", lambda run: run.finish(status))
        self._jobs.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._give_up(f"no answer within {patience:g} s")
        elif self._dropped:
            logger.warning(
                "MLflow took the numbers too slowly: %d values of this run are missing there; metrics.jsonl in the run "
                "directory has them all",
                self._dropped,
            )
        self._alive = False

    def _do(self, what: str, write: Callable[[Run], None]) -> None:
        if self._alive:
            self._jobs.put(Job(what, write))

    def _work(self, begin: Callable[[], Run]) -> None:
        try:
            run = begin()
            self._run_id = run.run_id
            self._where += run.where()
            self._settled.set()
            while self._alive and (job := self._next_job()):
                run.log_metrics(self._take_metrics())
                job.try_on(run)
            run.log_metrics(self._take_metrics())
        except Exception as error:  # whatever MLflow raises must not reach the training
            logger.debug("MLflow failed", exc_info=True)
            self._give_up(_root_cause(error))

    def _next_job(self) -> "Job | None":
        try:
            return self._jobs.get(timeout=BATCH_SECONDS)
        except queue.Empty:
            return Job("nothing", lambda run: None)

    def _take_metrics(self) -> list[tuple[str, float, int, int]]:
        return [self._metrics.popleft() for _ in range(len(self._metrics))]

    def _give_up(self, cause: str) -> None:
        if not self._alive:
            return
        self._alive = False
        self._dropped = 0
        self._metrics.clear()
        place = self._where[0].replace("MLflow:", "MLflow at", 1)
        self._where = [
            f"{place} failed and gets nothing more of this run ({cause}).",
            "The run itself is not affected: metrics.jsonl in the run directory has its numbers.",
        ]
        self._settled.set()
        logger.warning("%s %s", *self._where)


@dataclass(frozen=True)
class Job:
    """Something to write to a run, and what it is called in a warning."""

    what: str
    write: Callable[[Run], None]

    def try_on(self, run: Run) -> None:
        """Write it, or warn that it is missing; raises only if the store does not answer at all."""
        try:
            self.write(run)
        except Exception as error:  # noqa: BLE001 - such as a full disk or no access where MLflow keeps its files
            run.check()
            logger.warning("MLflow lacks %s of this run (%s); the run is not affected", self.what, _root_cause(error))


def _root_cause(error: BaseException) -> str:
    """The innermost of the chained errors, one line: "ConnectionRefusedError: [Errno 111] Connection refused"."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()), 400)
