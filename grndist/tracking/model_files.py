"""A network as MLflow keeps it: a model folder without a pickle, which predicts edges and holds the checkpoint.

MLmodel, requirements.txt, ...      what MLflow writes
logged_network.py                   the code that it runs
artifacts/network.json              what the network is
edges.parquet             its strongest edges
checkpoint/               weights.safetensors, checkpoint.json, and the run's config.yaml
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grndist import __version__

if TYPE_CHECKING:
    from mlflow import MlflowClient

ABOUT, EDGES, CONFIG = "network.json", "edges.parquet", "config.yaml"
WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.json"
PACKAGES = ("mlflow-skinny", "numpy", "pandas", "pyarrow")  # what `logged_network` imports
MODEL_ID = "grndist.model_id"  # tag of a version; MLflow itself does not always give the id back
NAMED = (
    "run",
    "model",
    "store_digest",
    "edges",
    "complete",
    "step",
)  # of network.json, what are tags


def requirements() -> list[str]:
    """What a logged network needs, in the versions that are installed."""
    return [f"{package}=={version(package)}" for package in PACKAGES]


def weights_digest(file: Path) -> str:
    """The sha256 of a checkpoint's weights, by which a logged network is known again."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def log_model(client: "MlflowClient", experiment_id: str, run_id: str, files: Mapping[str, Path], name: str) -> str:
    """Upload a network as a model of a run; return the model's id.

    Args:
        client: of the store that knows the run.
        experiment_id: the run's.
        run_id: the run.
        files: the checkpoint's files by their name, and network.json, edges.parquet and config.yaml if there are any.
        name: of the model in the experiment.
    """
    from mlflow.entities import LoggedModelOutput

    about = described(files)
    model = client.create_logged_model(
        experiment_id, name, run_id, tags=_tags(about, files), model_type="grndist"
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="grndist-model-") as folder:
        saved = save_model(files, Path(folder), about, model.model_id, run_id)
        client.log_model_artifacts(model.model_id, str(saved))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=int(about.get("step", 0)))])
    return model.model_id


def new_version(
    client: "MlflowClient", name: str, model_id: str, run_id: str, tags: Mapping[str, str] | None = None
) -> str:
    """Make a logged model the next version of a registered one, which is made if there is none; return its number."""
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # given models:/ID, MLflow would look into a database for it, but into that of its global URI
    is_server = client.tracking_uri.startswith(("http", "databricks"))
    source = f"models:/{model_id}" if is_server else client.get_logged_model(model_id).artifact_location
    made = client.create_model_version(
        name, source, run_id, tags={MODEL_ID: model_id} | dict(tags or {}), await_creation_for=0, model_id=model_id
    )  # fmt: skip
    return str(made.version)


def described(files: Mapping[str, Path]) -> dict[str, Any]:
    """What network.json says of a network, and what is sure of any."""
    about = json.loads(files[ABOUT].read_text(encoding="utf-8")) if ABOUT in files else {}
    return {"complete": EDGES in files, "directed": True, "genes": [], "grndist_version": __version__} | about


def _tags(about: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, str]:
    tags = {f"grndist.{key}": str(about[key]) for key in NAMED if key in about}
    tags["grndist.has_edges"] = str(EDGES in files)
    return tags | ({"grndist.weights_sha256": weights_digest(files[WEIGHTS])} if WEIGHTS in files else {})


def save_model(
    files: Mapping[str, Path], folder: Path, about: Mapping[str, Any], model_id: str | None, run_id: str | None
) -> Path:
    """Write a model folder below `folder` and return it."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    artifacts = _placed(files, folder, about)
    mlflow.pyfunc.save_model(
        path=str(folder / "model"),
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        python_model=str(Path(__file__).with_name("logged_network.py")),
        artifacts={name: str(path) for name, path in artifacts.items()},
        signature=_signature(),
        input_example=(pd.DataFrame([{}]), {"k": 1000, "regulators": [], "targets": []}),
        pip_requirements=requirements(),  # given, so that MLflow does not import everything to find out
        metadata={"grndist": {key: value for key, value in about.items() if key != "genes"}},
    )
    return folder / "model"


def _placed(files: Mapping[str, Path], folder: Path, about: Mapping[str, Any]) -> dict[str, Path]:
    """Lay files out as the model has them; the artifacts by their name."""
    artifacts = {"about": folder / ABOUT, "checkpoint": folder / "checkpoint"}
    artifacts["checkpoint"].mkdir()
    artifacts["about"].write_text(json.dumps(about, indent=1), encoding="utf-8")
    for inside, path in files.items():
        if inside == EDGES:
            artifacts["edges"] = folder / EDGES
            _place(path, folder / EDGES)
        elif inside != ABOUT:
            _place(path, folder / "checkpoint" / inside)
    return artifacts


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    edges = [ColSpec("string", "regulator"), ColSpec("string", "target"), ColSpec("double", "weight")]
    params = [
        ParamSpec("k", DataType.long, 1000),
        ParamSpec("regulators", DataType.string, [], shape=(-1,)),
        ParamSpec("targets", DataType.string, [], shape=(-1,)),
    ]
    return ModelSignature(inputs=None, outputs=Schema(edges), params=ParamSchema(params))


def _place(source: Path, target: Path) -> None:
    """Put a file at `target` without copying it where the file system can; MLflow follows no symbolic links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
