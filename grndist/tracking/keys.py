"""Settings and scores in the form, letters and lengths that MLflow allows for params and metrics."""

import re
from collections.abc import Mapping
from typing import Any

SYSTEM = "system/"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the keys of nested mappings with dots: `{"a": {"b": 1}}` is `{"a.b": 1}`; an empty mapping stays."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[mlflow_key(f"{prefix}{key}")] = value
    return result


def shortened(text: str, limit: int) -> str:
    """`text` cut to `limit` letters, the cut marked by dots."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def mlflow_key(name: str) -> str:
    """`name` in the letters and the length that MLflow allows for params and metrics."""
    return re.sub(r"^\.*$|^\.+|[^\w\-. ]", "_", name)[:250]  # taken for a path, it must not lead elsewhere


def metric_key(name: str) -> str:
    """`mlflow_key` of a metric; MLflow's page shows those below system/ apart."""
    rest = name.removeprefix(SYSTEM)
    return mlflow_key(name) if rest == name else SYSTEM + mlflow_key(rest)


def is_database(uri: str) -> bool:
    """Whether MLflow is asked for a database itself, not a server."""
    return not uri.startswith(("http", "databricks"))


def plain(value: Any) -> Any:
    """NumPy's scalars as Python's, anything else as text, for JSON."""
    return value.item() if hasattr(value, "item") else str(value)
