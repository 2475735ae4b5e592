"""How a run in MLflow is found again, or made: once, however often and wherever that was tried before.

Everything here blocks and raises what MLflow raises. Touches no global tracking URI, experiment or active run.
"""

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from grndist.tracking.keys import is_database
from grndist.tracking.mlflow_run import ANSWER_SECONDS, Run
from grndist.tracking.spool import Head

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "grndist.key"  # the tag by which a run is found whose id has not come back
PARENT = "mlflow.parentRunId"  # MLflow's own name
OF_KEY = "key:"  # before a parent's key, where its id is not known

logger = logging.getLogger(__name__)


def uri_of(head: Head) -> str:
    """Where a run is logged: what its settings name, or SQLite in its run root."""
    return head.config.uri or f"sqlite:///{Path(head.root) / 'mlflow.db'}"


def open_run(head: Head) -> Run:
    """Continue the run of `head` if the store knows it, otherwise start it; makes what is missing there."""
    uri, root = uri_of(head), Path(head.root)
    client = connected(uri, root)
    if run := _found(client, head):
        run.set_tags(_tags(client, run.experiment_id, head))
        return run
    artifacts = (root / "mlflow-artifacts").as_uri() if is_database(uri) else None  # a server has its own place
    experiment_id = _experiment_id(client, head.config.experiment, artifacts)
    run_id = _made(client, experiment_id, head)
    return Run(client, experiment_id, run_id)


def connected(uri: str, root: Path) -> "MlflowClient":
    """A client of the store at `uri`, which answers; a database has its tables."""
    from mlflow import MlflowClient

    if is_database(uri):
        root.mkdir(parents=True, exist_ok=True)
        _reach_database(uri)
    with _alone_on(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _found(client: "MlflowClient", head: Head) -> Run | None:
    from mlflow import MlflowException

    if head.run_id:
        try:
            run = client.get_run(head.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            return Run(client, run.info.experiment_id, head.run_id, is_known=True)
    experiment = client.get_experiment_by_name(head.config.experiment)
    if experiment and (run_id := _only(client, experiment.experiment_id, head.key)):
        return Run(client, experiment.experiment_id, run_id, is_known=True)
    if head.run_id:
        logger.warning(
            "MLflow has no run %s to continue (other or emptied store?); a new one is started", head.run_id
        )  # fmt: skip
    return None


def _made(client: "MlflowClient", experiment_id: str, head: Head) -> str:
    begun, tags = time.monotonic(), _tags(client, experiment_id, head)
    run_id: str = client.create_run(experiment_id, tags=tags, run_name=head.name).info.run_id
    was_late = time.monotonic() - begun > float(ANSWER_SECONDS)  # so that MLflow may have asked twice
    return _only(client, experiment_id, head.key) if was_late else run_id


def remove_twins(run: Run, head: Head) -> None:
    """Delete what else an answer that never came may have made of a run."""
    _only(run.client, run.experiment_id, head.key, run.run_id)


def _only(client: "MlflowClient", experiment_id: str, key: str, kept: str = "") -> str:
    """The one run with this key, the oldest if none is named; others are deleted. Empty if there is none."""
    found = _with_key(client, experiment_id, key)
    kept = kept or next(iter(found), "")
    for run_id in found:
        if run_id != kept:
            client.delete_run(run_id)
    return kept


def _with_key(client: "MlflowClient", experiment_id: str, key: str) -> list[str]:
    """Ids of the runs with this key, the oldest first."""
    found = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", order_by=["attributes.start_time ASC"])
    return [run.info.run_id for run in found]


def _tags(client: "MlflowClient", experiment_id: str, head: Head) -> dict[str, str]:
    """The user's, the run's key, and what puts it below another."""
    tags, parent = head.config.tags | {KEY: head.key}, head.config.parent
    if parent.startswith(OF_KEY):
        parent = next(iter(_with_key(client, experiment_id, parent.removeprefix(OF_KEY))), "")
    return tags | ({PARENT: parent} if parent else {})


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
