"""Where a run's numbers go besides its own directory: an MLflow run, or nowhere.

MLflow is a copy, never the original (that is the run directory's metrics.jsonl), so a failure here costs a warning and
nothing else: every call into MLflow is made on one worker thread, and when the store is gone tracking ends for this
run. The only module that knows MLflow's run ids; it touches no global tracking URI, experiment or active run.
"""

import contextlib
import fcntl
import json
import logging
import os
import queue
import re
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, field_validator

from grndist import __version__
from grndist.config import Config

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

BATCH_SECONDS = 3.0  # metrics wait at most this long before they are sent
OPEN_SECONDS = 20.0  # `run_id` waits at most this long for a new run's id
CLOSE_SECONDS = 60.0  # `close` waits at most this long for the last uploads
METRICS_HELD = 50_000  # values waiting to be sent; beyond it the oldest are dropped

HTTP_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
ANSWER_SECONDS = "3"  # for a small request: a server that is there answers at once
UPLOAD_SECONDS = "300"  # for a file, which the server may hand on before it answers
ENVIRONMENT = {  # MLflow has no other switches for these; a value that the user has set wins
    HTTP_TIMEOUT: ANSWER_SECONDS,  # 120 by default
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # 7 by default: a dead server would hold each call for four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a server could ask for an hour
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # grndist does not let a dependency report on its users
    "MLFLOW_UV_AUTO_DETECT": "false",  # it would copy the working directory's uv.lock into the model
}

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
        if re.search(r"://[^/@]*:[^/]*@|[?&]password=", uri):
            raise ValueError(
                "a password here would be copied into config.yaml, every checkpoint and MLflow; for a server set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, for PostgreSQL use ~/.pgpass"
            )
        return uri


def open_tracker(config: TrackingConfig, run_root: Path, run_name: str, run_id: str = "") -> "Tracker":
    """Start a run called `run_name`, or continue the one whose id is `run_id`, without waiting for MLflow's answer.

    Takes the time of `import mlflow`, a second or a few. What goes wrong, now or later, is one warning. If `run_id`
    is not known there (any more), a new run is started and a warning says so.
    """
    if config.kind == "none":
        return Tracker(None, "off (tracking.kind is none)")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(Exception):  # the worker will meet the same one and report it
        import mlflow.pyfunc  # noqa: F401 - here, since two threads that import the same packages can block each other
    root = run_root.resolve()
    uri = config.uri or f"sqlite:///{root / 'mlflow.db'}"
    return Tracker(lambda: _open_run(uri, config.experiment, root, run_name, run_id), uri, run_id)


class Tracker:
    """A run's line to MLflow: every method returns at once and never raises; one thread does the work in order."""

    def __init__(self, open_run: "Callable[[], _Run] | None", place: str, run_id: str = ""):
        self._where = [f"MLflow: {place}"]
        self._run_id = run_id
        self._alive = open_run is not None
        self._settled = threading.Event()  # opened, or failed to
        self._dropped = 0
        self._metrics: deque[tuple[str, float, int, int]] = deque(maxlen=METRICS_HELD)
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(open_run,), name="mlflow", daemon=True)
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
        tree = json.loads(json.dumps(resolved, default=_plain))
        self._do("the settings", lambda run: run.log_settings(tree))

    def log_dataset(self, name: str, digest: str, path: Path) -> None:
        """Log the store as the run's training data: MLflow's digest is the first 36 letters, a tag has it all."""
        self._do("the store's digest", lambda run: run.log_dataset(name, digest, path.resolve()))

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
        """Log a checkpoint as a model whose prediction is its edge list (see `tracking_pyfunc`); no pickle is written.

        Args:
            files: the checkpoint's files by their name inside it; they must stay as they are until `close`.
            name: the model's name in the experiment.
            registered_model_name: also make it the next version of this registered model; empty: do not.
        """
        files = {inside: path.resolve() for inside, path in files.items()}
        self._do("the model", lambda run: run.log_model(files, name, registered_model_name))

    def log_scores(self, scores: Mapping[str, Any]) -> None:
        """Log an evaluation: every number as the metric `key.path`, and the whole as scores.json."""
        tree = json.loads(json.dumps(scores, default=_plain))
        numbers = {key: value for key, value in _flat(tree).items() if type(value) in {int, float}}
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

    def _do(self, what: str, write: "Callable[[_Run], None]") -> None:
        if self._alive:
            self._jobs.put(Job(what, write))

    def _work(self, open_run: "Callable[[], _Run]") -> None:
        try:
            run = open_run()
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
    write: "Callable[[_Run], None]"

    def try_on(self, run: "_Run") -> None:
        """Write it, or warn that it is missing; raises only if the store does not answer at all."""
        try:
            self.write(run)
        except Exception as error:  # noqa: BLE001 - such as a full disk or no access where MLflow keeps its files
            run.check()
            logger.warning("MLflow lacks %s of this run (%s); the run is not affected", self.what, _root_cause(error))


class _Run:
    """One MLflow run, written through explicit ids. Its methods block, and raise what MLflow raises."""

    def __init__(self, client: "MlflowClient", experiment_id: str, run_id: str):
        self.client = client
        self.experiment_id = experiment_id
        self.run_id = run_id

    def where(self) -> list[str]:
        uri, page = self.client.tracking_uri, f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
        if _is_database(uri):
            return [
                f"  see it with: mlflow ui --backend-store-uri '{uri}'",
                f"  and open: http://127.0.0.1:5000/{page}",
            ]
        return [f"  open: {uri}/{page}" if uri.startswith("http") else f"  run id: {self.run_id}"]

    def check(self) -> None:
        self.client.get_run(self.run_id)

    def log_settings(self, tree: dict[str, Any]) -> None:
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

        there = self.client.get_run(self.run_id).data.params
        params = [
            Param(key, _shortened(value if isinstance(value, str) else json.dumps(value), MAX_PARAM_VAL_LENGTH))
            for key, value in _flat(tree).items()
            if key not in there
        ]
        for batch in _batches(params, MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(self.run_id, params=batch, synchronous=True)
        self.log_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), "config.yaml")

    def log_dataset(self, name: str, digest: str, path: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

        source = json.dumps({"uri": path.as_uri()})
        dataset = Dataset(name, digest[:MAX_DATASET_DIGEST_SIZE], source_type="local", source=source)
        tags = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])
        self.client.set_tag(self.run_id, "grndist.store_digest", digest)

    def log_metrics(self, rows: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.validation import MAX_METRICS_PER_BATCH

        metrics = [Metric(_key(name), value, timestamp, step) for name, value, timestamp, step in rows]
        for batch in _batches(metrics, MAX_METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=batch, synchronous=True)

    def log_text(self, text: str, name: str) -> None:
        self.client.log_text(self.run_id, text, name)

    def log_file(self, path: Path, folder: str) -> None:
        with _time_to_upload():
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def log_model(self, files: dict[str, Path], name: str, registered_model_name: str) -> None:
        from mlflow.entities import LoggedModelOutput

        model = self.client.create_logged_model(self.experiment_id, name, self.run_id, model_type="grndist")
        with tempfile.TemporaryDirectory(prefix="grndist-model-") as folder:
            saved = _save_model(files, Path(folder), model.model_id, self.run_id)
            with _time_to_upload():
                self.client.log_model_artifacts(model.model_id, str(saved))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        if registered_model_name:
            # given models:/ID, MLflow would look into a database for it, but into that of its global URI
            source = model.artifact_location if _is_database(self.client.tracking_uri) else f"models:/{model.model_id}"
            _register(self.client, registered_model_name, source, model.model_id, self.run_id)

    def finish(self, status: Status) -> None:
        self.client.set_terminated(self.run_id, status)


def _open_run(uri: str, experiment: str, root: Path, run_name: str, run_id: str) -> _Run:
    from mlflow import MlflowClient

    if _is_database(uri):
        root.mkdir(parents=True, exist_ok=True)
        _reach_database(uri)
    with _alone_on(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    if run_id and (found := _continued(client, run_id)):
        return found
    artifacts = (root / "mlflow-artifacts").as_uri() if _is_database(uri) else None  # a server has its own place
    experiment_id = _experiment_id(client, experiment, artifacts)
    tags = {"grndist.version": __version__}
    return _Run(client, experiment_id, client.create_run(experiment_id, tags=tags, run_name=run_name).info.run_id)


def _is_database(uri: str) -> bool:
    return not uri.startswith(("http", "databricks"))


def _reach_database(uri: str) -> None:
    """Raise at once if the database is not there; MLflow itself would try again for minutes."""
    import sqlalchemy

    limit = "timeout" if uri.startswith(("sqlite", "mssql")) else "connect_timeout"
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args={limit: int(ANSWER_SECONDS)})
    with engine.connect() as connection:
        sqlalchemy.inspect(connection).get_table_names()


@contextlib.contextmanager
def _alone_on(uri: str) -> Iterator[None]:
    """Keep other processes out while MLflow makes the tables of an SQLite file; it goes wrong if two do so at once."""
    if not uri.startswith("sqlite"):
        yield
        return
    with Path(uri.split(":///", 1)[1] + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _continued(client: "MlflowClient", run_id: str) -> _Run | None:
    from mlflow import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning("MLflow has no run %s to continue (other or emptied store?); a new one is started", run_id)
        return None
    client.update_run(run_id, status="RUNNING")
    return _Run(client, run.info.experiment_id, run_id)


def _experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    from mlflow import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, artifacts)
    except MlflowException as error:
        found = client.get_experiment_by_name(name)  # another process may have been faster
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found.experiment_id


def _save_model(files: dict[str, Path], folder: Path, model_id: str, run_id: str) -> Path:
    """Write a model folder below `folder`: the checkpoint's files, the code that reads them, and what it needs."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    for inside, path in files.items():
        _place(path, folder / "checkpoint" / inside)
    edges = [ColSpec("string", "regulator"), ColSpec("string", "target"), ColSpec("double", "weight")]
    mlflow.pyfunc.save_model(
        path=str(folder / "model"),
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        python_model=str(Path(__file__).with_name("tracking_pyfunc.py")),
        artifacts={"checkpoint": str(folder / "checkpoint")},
        signature=ModelSignature(inputs=Schema([ColSpec("long", "k")]), outputs=Schema(edges)),
        input_example=pd.DataFrame({"k": [1000]}),
        pip_requirements=[f"grndist=={__version__}"],  # given, so that MLflow does not import everything to find out
    )
    return folder / "model"


def _place(source: Path, target: Path) -> None:
    """Put a file at `target` without copying it where the file system can; MLflow follows no symbolic links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _register(client: "MlflowClient", name: str, source: str, model_id: str, run_id: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.create_model_version(name, source, run_id, await_creation_for=0, model_id=model_id)


@contextlib.contextmanager
def _time_to_upload() -> Iterator[None]:
    """Wait longer for an answer while a file is sent, unless the user has set MLflow's limit."""
    if os.environ.get(HTTP_TIMEOUT) != ANSWER_SECONDS:
        yield
        return
    os.environ[HTTP_TIMEOUT] = UPLOAD_SECONDS
    try:
        yield
    finally:
        os.environ[HTTP_TIMEOUT] = ANSWER_SECONDS


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the keys of nested mappings with dots: `{"a": {"b": 1}}` is `{"a.b": 1}`; an empty mapping stays."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[_key(f"{prefix}{key}")] = value
    return result


def _shortened(text: str, limit: int) -> str:
    """`text` cut to `limit` letters, the cut marked by dots."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _root_cause(error: BaseException) -> str:
    """The innermost of the chained errors, one line: "ConnectionRefusedError: [Errno 111] Connection refused"."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return _shortened(" ".join(f"{type(error).__name__}: {error}".split()), 400)


def _key(name: str) -> str:
    """`name` in the letters and the length that MLflow allows for params and metrics."""
    return re.sub(r"^\.*$|^\.+|[^\w\-. ]", "_", name)[:250]  # taken for a path, it must not lead elsewhere


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, anything else as text, for JSON."""
    return value.item() if hasattr(value, "item") else str(value)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
