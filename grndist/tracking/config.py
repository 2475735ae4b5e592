"""The settings of tracking."""

import re
from typing import Literal

from pydantic import Field, field_validator

from grndist.config import Config


class TrackingConfig(Config):
    """Whether and where runs are logged."""

    kind: Literal["mlflow", "none"] = "mlflow"
    uri: str = Field(
        "",
        description="an MLflow server (https://...) or database (sqlite:////absolute/path.db, postgresql://...); empty "
        "means SQLite at <run root>/mlflow.db with the files in <run root>/mlflow-artifacts",
    )
    experiment: str = Field("grndist", min_length=1, max_length=500)
    parent: str = Field(
        "",
        max_length=64,
        description="the MLflow run that this one is shown below: its run id, or key:... of one whose id is not known",
    )
    tags: dict[str, str] = Field({}, description="tags of the MLflow run, e.g. sweep, trial and replicate")
    log_network: bool = Field(
        True, description="false: neither the model nor edges nor figures are logged, as for the trials of a sweep"
    )

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

    @field_validator("tags")
    @classmethod
    def _leaves_ours(cls, tags: dict[str, str]) -> dict[str, str]:
        for name, value in tags.items():
            if not re.fullmatch(r"[\w\-. ]{1,250}", name) or name.startswith(("mlflow.", "grndist.")):
                raise ValueError(
                    f"{name!r}: letters, digits, - _ . and spaces were expected, and neither mlflow. nor grndist. in "
                    "front; rename it"
                )
            if len(value) > 5000:
                raise ValueError(f"{name} has {len(value)} letters; MLflow keeps 5000, so shorten it")
        return tags
