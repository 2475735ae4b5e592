"""A logged network brought back from MLflow as a run directory.

config.yaml                       the run's settings
network.json                      what the network is
edges.parquet                     its strongest edges, if the model holds them
checkpoints/step-00000120/        weights.safetensors, checkpoint.json
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

from grndist.files import remove
from grndist.tracking.model_files import ABOUT, CHECKPOINT, CONFIG, EDGES, WEIGHTS
from grndist.tracking.stores import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def fetch(client: "MlflowClient", model_id: str, source: str, called: str, folder: Path) -> None:
    """Copy a logged network into a new folder.

    Args:
        client: of the store that knows the model.
        model_id: of the logged model; empty: only its source is known.
        source: where a version of it has its files.
        called: what the network is called in messages.
        folder: to make.

    Raises:
        RegistryError: it holds no checkpoint, or its files are not to be had from here.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = client.get_logged_model(model_id).artifact_location if model_id else source
    _refuse_elsewhere(place, called)
    repository = get_artifact_repository(place, tracking_uri=client.tracking_uri, registry_uri=client.tracking_uri)
    inside = {"artifacts", "artifacts/checkpoint"}
    there = {file.path for path in sorted(inside) for file in repository.list_artifacts(path)}
    if not {f"artifacts/checkpoint/{name}" for name in (WEIGHTS, CHECKPOINT)} <= there:
        raise RegistryError(
            f"{called} holds no checkpoint, so it is no network of grndist; register one: grndist models register RUN"
        )
    aside = folder / ".fetched"
    aside.mkdir(parents=True)
    for path in sorted(there - inside):
        repository.download_artifacts(path, str(aside))
    _as_run(aside / "artifacts", folder)
    remove(aside)


def _refuse_elsewhere(place: str, called: str) -> None:
    """Raise if files are said to be in a folder that this machine does not have."""
    parts = urlsplit(place)
    if parts.scheme in ("", "file") and not Path(unquote(parts.path)).is_dir():
        raise RegistryError(
            f"{called}: its files are in {unquote(parts.path)}, which is not a folder of this machine; ask from a "
            "machine that has it, or use an MLflow server that hands files out (--serve-artifacts)"
        )


def _as_run(artifacts: Path, folder: Path) -> None:
    checkpoint = artifacts / "checkpoint"
    about: dict[str, Any] = json.loads((checkpoint / CHECKPOINT).read_text(encoding="utf-8"))
    if not (checkpoint / CONFIG).is_file():
        settings = about["config"] | {"store_digest": about["store_digest"]}
        (checkpoint / CONFIG).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    target = folder / "checkpoints" / f"step-{about['step']:08d}"
    target.mkdir(parents=True)
    for name in (WEIGHTS, CHECKPOINT):
        (checkpoint / name).rename(target / name)
    (checkpoint / CONFIG).rename(folder / CONFIG)
    for name in (ABOUT, EDGES):
        if (artifacts / name).is_file():
            (artifacts / name).rename(folder / name)
