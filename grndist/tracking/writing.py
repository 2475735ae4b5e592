"""A network logged so that it can be registered: found where it was logged before, or logged now, waiting for it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grndist import __version__
from grndist.storage import is_remote
from grndist.tracking.keys import plain
from grndist.tracking.mlflow_run import Run, Status
from grndist.tracking.model_files import WEIGHTS, weights_digest
from grndist.tracking.registry import Registry
from grndist.tracking.stores import explained

PARENT = "mlflow.parentRunId"
RUN = "grndist.run"  # the run directory that a logged model came from


@dataclass(frozen=True)
class Origin:
    """Where a network is logged."""

    run_id: str
    model_id: str
    tags: dict[str, str] = field(default_factory=dict)  # of the run, such as its sweep and trial


def found_logged(registry: Registry, run_id: str, experiment: str, run: str, checkpoint: Path) -> Origin | None:
    """Where a checkpoint was logged with its edges, last: in MLflow's run `run_id` or, if that is not known, of `run`.

    Raises:
        RegistryError: the store does not answer.
    """
    client = registry.client
    with explained(registry.uri):
        if known := _run(client, run_id):
            return _newest(client, known.info.experiment_id, checkpoint / WEIGHTS, _of_run(run_id))
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        return _newest(client, found.experiment_id, checkpoint / WEIGHTS, lambda m: m.tags.get(RUN) == run)


def log_network(
    registry: Registry,
    run_id: str,
    experiment: str,
    run: str,
    root: Path,
    settings: Mapping[str, Any],
    files: Mapping[str, Path],
) -> Origin:
    """Log a network in the run `run_id` or, if that is not known, in a new one of its settings, which ends with it.

    Args:
        registry: where to.
        run_id: MLflow's, empty if there is none.
        experiment: of a new run; made if it is not there.
        run: the run directory, a path or URL.
        root: where MLflow's files are, if the store is a database and the experiment is new.
        settings: the run's config.yaml.
        files: as `model_files.log_model` takes them.

    Raises:
        RegistryError: the store does not answer, or refuses.
    """
    client = registry.client
    with explained(registry.uri):
        if known := _run(client, run_id):
            logs = Run(client, known.info.experiment_id, run_id)
            logs.log_model(files, "network", "")
        else:
            logs = _new_run(registry, experiment, run, root)
            with _ended(logs):
                _log_settings(logs, settings)
                logs.log_model(files, "network", "")
        made = _newest(client, logs.experiment_id, files[WEIGHTS], _of_run(logs.run_id))
        assert made is not None
        return made


@contextmanager
def _ended(logs: Run) -> Iterator[None]:
    """Set a run's status at the end, whatever it is."""
    status: Status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        logs.client.set_terminated(logs.run_id, status)


def _log_settings(logs: Run, settings: Mapping[str, Any]) -> None:
    logs.log_settings(json.loads(json.dumps(settings, default=plain)))
    store = str(settings["store"])
    uri = store if is_remote(store) else Path(store).absolute().as_uri()
    logs.log_dataset(store.rstrip("/").rpartition("/")[2], str(settings["store_digest"]), uri)


def _newest(
    client: Any, experiment_id: str, weights: Path, is_ours: Callable[[Any], bool]
) -> Origin | None:  # fmt: skip
    """The last whole model with these weights and their edges, of those that are ours."""
    condition = f"tags.`grndist.weights_sha256` = '{weights_digest(weights)}' AND tags.`grndist.has_edges` = 'True'"
    order = [{"field_name": "creation_timestamp", "ascending": False}]
    models = client.search_logged_models([experiment_id], condition, order_by=order)
    found = [model for model in models if model.status == "READY" and is_ours(model)]
    return _origin(client, found[0].source_run_id, found[0].model_id) if found else None


def _of_run(run_id: str) -> Callable[[Any], bool]:
    return lambda model: model.source_run_id == run_id


def _run(client: Any, run_id: str) -> Any:
    """What MLflow knows of a run, None if nothing."""
    from mlflow import MlflowException

    if not run_id:
        return None
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _new_run(registry: Registry, experiment: str, run: str, root: Path) -> Run:
    client, is_server = registry.client, registry.uri.startswith(("http", "databricks"))
    found = client.get_experiment_by_name(experiment)
    artifacts = None if is_server else (root / "mlflow-artifacts").as_uri()
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifacts)
    name = run.rstrip("/").rpartition("/")[2]
    made = client.create_run(experiment_id, tags={"grndist.version": __version__}, run_name=name)
    return Run(client, experiment_id, made.info.run_id)


def _origin(client: Any, run_id: str, model_id: str) -> Origin:
    tags = client.get_run(run_id).data.tags
    kept = {key: value for key, value in tags.items() if not key.startswith("mlflow.") and key != "grndist.key"}
    parent = {"grndist.parent_run": tags[PARENT]} if PARENT in tags else {}
    return Origin(run_id, model_id, kept | parent)
