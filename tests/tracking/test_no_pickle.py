"""No file that grndist leaves is or holds a pickle: checkpoints, edge lists and logged models of every kind."""

import base64
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.test_cli import done

SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt"}
KINDS = {"first": "grn_vae", "vectors": "catran", "directed": "catran_d"}


def signs_of_a_pickle(file: Path) -> list[str]:
    """What in a file would be, or hold, a pickle."""
    content = file.read_bytes()
    signs = {
        "its name": file.suffix in SUFFIXES or "pickle" in file.name,
        "it is a pickle": is_pickle(content),
        "a pickle inside": has_frame(content),
        "an archive": zipfile.is_zipfile(file),  # what torch.save writes is one
        "a pickle as text": any(text in content for text in (b"gASV", b"gAWV")) and is_text(content),
    }
    return [f"{file}: {sign}" for sign, there in signs.items() if there]


def is_pickle(content: bytes) -> bool:
    """Whether it reads as the operations of a pickle, of any protocol, up to a STOP."""
    try:
        return len(list(pickletools.genops(content))) > 1
    except Exception:  # noqa: BLE001 - whatever the operations make of other bytes
        return False


def has_frame(content: bytes) -> bool:
    """Whether a pickle of protocol 4 or 5 begins anywhere: PROTO, FRAME, and a length that fits into the file."""
    for header in (b"\x80\x04\x95", b"\x80\x05\x95"):
        start = content.find(header)
        while start >= 0:
            length = int.from_bytes(content[start + 3 : start + 11], "little")
            if 0 < length <= len(content) - start - 11:
                return True
            start = content.find(header, start + 1)
    return False


def is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _saved_by_torch(legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


class Thing:
    """Something that only cloudpickle can pickle by value."""


def _by_cloudpickle() -> bytes:
    return pytest.importorskip("cloudpickle").dumps(lambda: Thing)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        *[(f"protocol-{number}", lambda number=number: pickle.dumps({"a": [1.5, "b"]}, number)) for number in range(6)],
        ("cloudpickle", _by_cloudpickle),
        ("python_model.pkl", lambda: b"anything"),
        ("torch", lambda: _saved_by_torch(legacy=False)),
        ("torch-legacy", lambda: _saved_by_torch(legacy=True)),
        ("behind-a-header", lambda: b"PAR1" + bytes(100) + pickle.dumps(list(range(50)), 5) + b"PAR1"),
        ("base64.json", lambda: b'{"a": "' + base64.b64encode(pickle.dumps(list(range(50)), 4)) + b'"}'),
    ],
)
def test_the_search_finds_every_sort_of_pickle(name: str, made: Callable[[], bytes], tmp_path: Path):
    (tmp_path / name).write_bytes(made())
    assert signs_of_a_pickle(tmp_path / name)


@pytest.mark.parametrize("run", KINDS)
def test_a_run_and_its_logged_model_have_none(run: str, folder: Path, model_of_run: Any, tmp_path: Path):
    assert yaml.safe_load((folder / "runs" / run / "config.yaml").read_text())["model"]["kind"] == KINDS[run]
    for ending in ("parquet", "tsv", "csv.gz"):
        done(f"infer '{folder}/runs/{run}' --all -o '{tmp_path}/edges.{ending}'")
    model = model_of_run(run)
    files = [file for place in (folder / "runs" / run, model, tmp_path) for file in place.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"weights.safetensors", "optimizer.safetensors", "checkpoint.json", "edges.parquet"} <= names
    assert {"MLmodel", "logged_network.py", "network.json", "requirements.txt"} <= {file.name for file in files}
    assert [sign for file in files for sign in signs_of_a_pickle(file)] == []


@pytest.mark.parametrize("run", KINDS)
def test_mlflow_has_nothing_to_unpickle(run: str, model_of_run: Any, monkeypatch: pytest.MonkeyPatch):
    import mlflow.pyfunc

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    flavor = yaml.safe_load((model_of_run(run) / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavor["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert "python_model" not in flavor
    assert len(mlflow.pyfunc.load_model(str(model_of_run(run))).predict(None, params={"k": 5})) == 5


@pytest.fixture
def model_of_run(folder: Path) -> Callable[[str], Path]:
    """A function that gives the folder of the model that was logged of a run."""
    import json
    from urllib.parse import unquote, urlparse

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/runs/mlflow.db")

    def model_of(run: str) -> Path:
        run_id = json.loads((folder / "runs" / run / "tracking.json").read_text())["run_id"]
        (output,) = client.get_run(run_id).outputs.model_outputs
        return Path(unquote(urlparse(client.get_logged_model(output.model_id).artifact_location).path))

    return model_of
