"""The half that waits: one MLflow run, its experiment and store, and the logged model.

Everything here blocks and raises what MLflow raises. The only module that knows MLflow's run ids; it touches no global
tracking URI, experiment or active run, and imports MLflow only where it is used.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from grndist import __version__
from grndist.tracking import model_files
from grndist.tracking.keys import flat, mlflow_key, shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

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


def prepare_mlflow() -> None:
    """Set MLflow's switches, then import it in the calling thread; what goes wrong shows when a run is opened.

    Two threads that import the same packages can block each other, so the thread that logs must not be the first.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(Exception):  # the logging thread will meet the same one and report it
        import mlflow.pyfunc  # noqa: F401


class Run:
    """One MLflow run, written through explicit ids. Its methods block, and raise what MLflow raises."""

    def __init__(self, client: "MlflowClient", experiment_id: str, run_id: str):
        self.client = client
        self.experiment_id = experiment_id
        self.run_id = run_id

    def where(self) -> list[str]:
        """Lines that say how to look at the run."""
        uri, page = self.client.tracking_uri, f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
        if _is_database(uri):
            return [
                f"  see it with: mlflow ui --backend-store-uri '{uri}'",
                f"  and open: http://127.0.0.1:5000/{page}",
            ]
        return [f"  open: {uri}/{page}" if uri.startswith("http") else f"  run id: {self.run_id}"]

    def check(self) -> None:
        """Raise if the store does not answer."""
        self.client.get_run(self.run_id)

    def log_settings(self, tree: dict[str, Any]) -> None:
        """Log params that are not there yet, and config.yaml; `tree` holds only what JSON can."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

        there = self.client.get_run(self.run_id).data.params
        params = [
            Param(key, shortened(value if isinstance(value, str) else json.dumps(value), MAX_PARAM_VAL_LENGTH))
            for key, value in flat(tree).items()
            if key not in there
        ]
        for batch in _batches(params, MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(self.run_id, params=batch, synchronous=True)
        self.log_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), "config.yaml")

    def log_dataset(self, name: str, digest: str, uri: str) -> None:
        """Log the training data; the digest also whole, as a tag."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

        source = json.dumps({"uri": uri})
        dataset = Dataset(name, digest[:MAX_DATASET_DIGEST_SIZE], source_type="local", source=source)
        tags = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])
        self.client.set_tag(self.run_id, "grndist.store_digest", digest)

    def log_metrics(self, rows: list[tuple[str, float, int, int]]) -> None:
        """Log rows of name, value, time in milliseconds and step."""
        from mlflow.entities import Metric
        from mlflow.utils.validation import MAX_METRICS_PER_BATCH

        metrics = [Metric(mlflow_key(name), value, timestamp, step) for name, value, timestamp, step in rows]
        for batch in _batches(metrics, MAX_METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=batch, synchronous=True)

    def log_text(self, text: str, name: str) -> None:
        """Log `text` as the artifact `name`."""
        self.client.log_text(self.run_id, text, name)

    def log_file(self, path: Path, folder: str) -> None:
        """Upload a file into `folder`, the top if empty."""
        with _time_to_upload():
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def log_model(self, files: Mapping[str, Path], name: str, registered_model_name: str) -> None:
        """Upload a network as a model, and register it unless `registered_model_name` is empty."""
        with _time_to_upload():
            model_id = model_files.log_model(self.client, self.experiment_id, self.run_id, files, name)
        if registered_model_name:
            model_files.new_version(self.client, registered_model_name, model_id, self.run_id)

    def finish(self, status: Status) -> None:
        """Set the run's status and end time."""
        self.client.set_terminated(self.run_id, status)


def open_run(uri: str, experiment: str, root: Path, run_name: str, run_id: str) -> Run:
    """Continue the run `run_id` if the store at `uri` knows it, otherwise start one; makes what is missing there."""
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
    return Run(client, experiment_id, client.create_run(experiment_id, tags=tags, run_name=run_name).info.run_id)


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


def _continued(client: "MlflowClient", run_id: str) -> Run | None:
    from mlflow import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning("MLflow has no run %s to continue (other or emptied store?); a new one is started", run_id)
        return None
    client.update_run(run_id, status="RUNNING")
    return Run(client, run.info.experiment_id, run_id)


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


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
