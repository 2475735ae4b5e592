"""Where only `mlflow-skinny` is installed: a server gets everything, and without one everything waits."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.test_cli import grndist
from tests.tracking.conftest import REPOSITORY
from tests.tracking.stores import MLflowServer

pytestmark = pytest.mark.slow

RUN = {
    "model": {"kind": "catran", "embedding": 4},
    "training": {"epochs": 4, "cells_per_step": 60, "genes_per_step": 8, "log_every": 2, "threads": 1},
}
NOT_OURS = ("mlflow", "..", "__pycache__", "bin")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required() -> set[str]:
    """What `pip install grndist` brings: its own requirements, and theirs."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    waiting, found = [Requirement(line) for line in project["dependencies"]], set()
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += map(Requirement, importlib.metadata.distribution(name).requires or [])
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment with links to what grndist requires, and a fresh mlflow-skinny."""
    folder = tmp_path_factory.mktemp("skinny")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for name in required() - {"mlflow-skinny"}:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - set(NOT_OURS):
            source, target = Path(str(distribution.locate_file(top))), site / top
            if not target.exists():
                target.symlink_to(source, target_is_directory=source.is_dir())
    version = importlib.metadata.version("mlflow-skinny")
    made = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", made, "install", "--quiet", "--no-deps", f"mlflow-skinny=={version}"],
        check=True,
    )
    yield made
    shutil.rmtree(folder)


def run(python: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        [python, "-m", "grndist.cli", *arguments], cwd=REPOSITORY, env=environment | {"PYTHONPATH": str(REPOSITORY)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_a_server_everything_is_logged_and_without_one_it_waits_for_it(
    python: Path, pristine_store: Path, tmp_path: Path
):
    from mlflow import MlflowClient

    for module in ("mlflow.server.handlers", "sqlalchemy", "alembic", "flask"):
        assert subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode == 1
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | {"store": str(pristine_store), "runs": str(tmp_path)}))
    said = run(python, "train", str(tmp_path / "run.yaml"), "name=without")
    waits = [line for line in said.splitlines() if "grndist tracking replay" in line]
    assert len(waits) == 1
    assert "a database needs the whole of MLflow, and here is mlflow-skinny" in waits[0]

    server = MLflowServer(tmp_path)
    server.start()
    try:
        said = run(python, "train", str(tmp_path / "run.yaml"), "name=with", f"tracking.uri={server.uri}")
        assert "waits in" not in said
        run(python, "tracking", "replay", str(tmp_path / "without"), "--uri", server.uri)
        run(python, "infer", str(tmp_path / "without"), "-k", "20")
        client = MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)
        for name in ("with", "without"):
            about = json.loads((tmp_path / name / "tracking.json").read_text())
            found = client.get_run(about["run_id"])
            lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            points = client.get_metric_history(about["run_id"], "loss")
            assert [(point.step, point.value) for point in points] == [(line["step"], line["loss"]) for line in lines]
            assert (found.info.run_name, found.info.status) == (name, "FINISHED")
            (output,) = found.outputs.model_outputs
            assert client.get_logged_model(output.model_id).status == "READY"
            assert {file.path for file in client.list_artifacts(about["run_id"])} == {
                "config.yaml", "edges", "figures",
            }  # fmt: skip
    finally:
        server.kill()
    assert grndist(f"tracking replay {tmp_path}").out == f"nothing waits for MLflow in {tmp_path}\n"
