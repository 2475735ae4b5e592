"""The MLflow store in which networks are registered: which one it is, a client of it, and what its errors mean.

The only place that reads MLFLOW_TRACKING_URI: it says where registered networks are, never where a run is logged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grndist.config import validate
from grndist.errors import UserError
from grndist.storage import is_remote
from grndist.tracking import TrackingConfig
from grndist.tracking.keys import shortened
from grndist.tracking.mlflow_run import ANSWER_SECONDS, prepare_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE = "MLFLOW_TRACKING_URI"
OPTION = "--tracking-uri"
LETTERS = 300  # of what MLflow says


class RegistryError(UserError):
    """What is asked of the registry is not there, or the registry is not."""


def default_root(runs: str | Path) -> Path:
    """The folder of mlflow.db: the run root, or where one stands if that is at a URL."""
    return Path.cwd() if is_remote(runs) else Path(runs).absolute()


def store_uri(given: str = "", runs: str | Path = "runs") -> str:
    """Where networks are registered: what is given, else MLFLOW_TRACKING_URI, else mlflow.db in the run root.

    Raises:
        ConfigError: it is no URI of a store, or has a password in it.
        RegistryError: nothing is said, and there is no mlflow.db.
    """
    named = given or os.environ.get(VARIABLE, "")
    if named:
        return validate(TrackingConfig, {"uri": named}, OPTION if given else VARIABLE).uri
    file = default_root(runs) / "mlflow.db"
    if not file.is_file():
        raise RegistryError(
            f"{file}: no such file, so no run was logged there; say where networks are registered: {OPTION}, or the "
            f"environment variable {VARIABLE}, or stand in the folder of runs/"
        )
    return f"sqlite:///{file}"


def refuse_missing(uri: str) -> None:
    """Raise if an SQLite file is not there; MLflow would make an empty one.

    Raises:
        RegistryError: it is not.
    """
    file = Path(uri.partition(":///")[2])
    if uri.startswith("sqlite") and not file.is_file():
        raise RegistryError(f"{file}: no such file, so nothing is registered there; check {OPTION} or {VARIABLE}")


def connected(uri: str) -> "MlflowClient":
    """A client of the store at `uri`, which has answered.

    Raises:
        RegistryError: it does not answer.
    """
    prepare_mlflow()
    if not uri.startswith(("http", "databricks")):
        _reach_database(uri)
    with explained(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)
        return client


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Errors of a store as one message.

    Raises:
        RegistryError: it does not answer, or refuses what is asked.
    """
    from mlflow import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        raise RegistryError(_why(uri, error)) from error


def _why(uri: str, error: Exception) -> str:
    from mlflow import MlflowException

    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if isinstance(cause, MlflowException):
        return f"MLflow at {uri} refuses: {_line(str(cause.message))}"
    return _silent(uri, cause)


def _silent(uri: str, cause: BaseException) -> str:
    said = _line(f"{type(cause).__name__}: {cause}")
    return f"MLflow at {uri} does not answer ({said}); start it, or name another store: {OPTION} or {VARIABLE}"


def _line(text: str) -> str:
    return shortened(" ".join(text.split()), LETTERS)


def _reach_database(uri: str) -> None:
    """Raise at once if the database is not there; MLflow itself would try again for minutes."""
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise RegistryError(
            f"{uri} is a database, for which the package mlflow is needed: pip install mlflow"
        ) from error
    limit = "timeout" if uri.startswith(("sqlite", "mssql")) else "connect_timeout"
    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args={limit: int(ANSWER_SECONDS)})
        with engine.connect() as connection:
            sqlalchemy.inspect(connection).get_table_names()
    except (SQLAlchemyError, ImportError) as error:  # the latter: no driver
        raise RegistryError(_silent(uri, error)) from error
