"""One MLflow run, written through its id, and the logged model.

Everything here blocks and raises what MLflow raises. Touches no global tracking URI, experiment or active run, and
imports MLflow only where it is used; a server needs no more of MLflow than `mlflow-skinny`. What is written twice is
there once, except metrics and models (`sender` sees to those).
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import yaml

from grndist.tracking import model_files
from grndist.tracking.keys import flat, shortened
from grndist.tracking.keys import is_database as _is_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

TABLES = "mlflow.loggedArtifacts"  # MLflow's tag for what its page shows as tables
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


class Point(NamedTuple):
    """A value of a metric."""

    key: str
    value: float
    time: int  # milliseconds
    step: int


def prepare_mlflow() -> None:
    """Set MLflow's switches, then import it in the calling thread; what goes wrong shows when a run is opened.

    Two threads that import the same packages can block each other, so the thread that logs must not be the first.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every try
    with contextlib.suppress(Exception):  # the logging thread will meet the same one and report it
        import mlflow.pyfunc  # noqa: F401


class Run:
    """One MLflow run, written through explicit ids. Its methods block, and raise what MLflow raises."""

    def __init__(self, client: "MlflowClient", experiment_id: str, run_id: str, is_known: bool = False):
        self.client = client
        self.experiment_id = experiment_id
        self.run_id = run_id
        self.is_known = is_known  # it was there before, and may have more than this process knows of

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

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set tags, in place of those of the same names."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)

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

    def log_metrics(self, points: list[Point]) -> None:
        """Log points, whose keys are such that MLflow takes them."""
        from mlflow.entities import Metric
        from mlflow.utils.validation import MAX_METRICS_PER_BATCH

        for batch in _batches([Metric(*point) for point in points], MAX_METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=batch, synchronous=True)

    def points(self, key: str) -> list[Point]:
        """All points of a metric."""
        return [Point(m.key, m.value, m.timestamp, m.step) for m in self.client.get_metric_history(self.run_id, key)]

    def log_text(self, text: str, name: str) -> None:
        """Log `text` as the artifact `name`."""
        self.client.log_text(self.run_id, text, name)

    def log_table(self, table: dict[str, list[Any]], name: str) -> None:
        """Log columns and rows (`data`) in the form of MLflow's `log_table`, which would append to what is there."""
        self.log_text(json.dumps(table), name)
        tables = json.loads(self.client.get_run(self.run_id).data.tags.get(TABLES, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in tables:
            self.client.set_tag(self.run_id, TABLES, json.dumps([*tables, entry]))

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

    def set_status(self, status: Status | Literal["RUNNING"], time: int) -> None:
        """Set the run's status and, unless it runs, its end in milliseconds."""
        if status == "RUNNING":
            self.client.update_run(self.run_id, status=status)
        else:
            self.client.set_terminated(self.run_id, status, time)

    def models(self) -> dict[str, bool]:
        """Ids of the models that were logged in this run, and whether each is whole."""
        outputs = {output.model_id for output in self.client.get_run(self.run_id).outputs.model_outputs}
        found = self.client.search_logged_models([self.experiment_id], f"source_run_id = '{self.run_id}'")
        return {model.model_id: model.status == "READY" and model.model_id in outputs for model in found}

    def delete_model(self, model_id: str) -> None:
        """Delete what is there of a model."""
        self.client.delete_logged_model(model_id)


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
