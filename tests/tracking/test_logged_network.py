from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
import pytest

from grndist.errors import UserError
from grndist.tracking import Tracker


@pytest.fixture(scope="module")
def model_folder(client: Any, logged: Tracker) -> Path:
    (output,) = client.get_run(logged.run_id).outputs.model_outputs
    return _local(client.get_logged_model(output.model_id).artifact_location)


def _local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def test_the_model_predicts_the_edges_of_its_checkpoint(
    model_folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow.pyfunc

    from grndist.inference import edges_of_checkpoint

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(str(model_folder))
    predicted = model.predict(pd.DataFrame({"k": [7]}))
    assert len(predicted) == 7
    pd.testing.assert_frame_equal(predicted, edges_of_checkpoint(checkpoint, 7).table)


def test_no_file_of_the_model_is_a_pickle(model_folder: Path):
    files = [file for file in model_folder.rglob("*") if file.is_file()]
    assert {"weights.safetensors", "checkpoint.json", "logged_network.py", "MLmodel"} <= {file.name for file in files}
    assert not [file for file in files if file.suffix in {".pkl", ".pickle", ".pt"} or file.read_bytes()[:1] == b"\x80"]
    assert "grndist==" in (model_folder / "requirements.txt").read_text()


@pytest.mark.parametrize("asked", [[0], [-3], [5, 6], []])
def test_the_model_refuses_anything_but_one_positive_k(model_folder: Path, asked: list[int]):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(model_folder))
    with pytest.raises(UserError, match="give one row with the number of edges, at least 1"):
        model.predict(pd.DataFrame({"k": np.array(asked, dtype=np.int64)}))


def test_the_registered_model_is_the_logged_one(client: Any, logged: Tracker, model_folder: Path):
    (version,) = client.search_model_versions("name = 'grn'")
    assert version.run_id == logged.run_id
    assert _local(version.source) == model_folder
