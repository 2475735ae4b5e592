"""The model that MLflow loads: what it predicts, what it refuses, and that it needs nothing but its requirements."""

import json
import re
import subprocess
import venv
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest

from grndist.inference import GeneLists, edges_of_checkpoint
from grndist.runs.logged import files_of, strongest
from grndist.tracking import Tracker
from grndist.tracking.model_files import described, requirements, save_model
from tests.inference.checkpoints import catran, saved

LISTS = [("G1 G3 G4", ""), ("", "G0 G5"), ("G2", "G1 G3"), ("G3 G4", "G3 G0 G4")]


@pytest.fixture(scope="module")
def model_folder(client: Any, logged: Tracker) -> Path:
    (output,) = client.get_run(logged.run_id).outputs.model_outputs
    return _local(client.get_logged_model(output.model_id).artifact_location)


def _local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    import mlflow.pyfunc

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        return mlflow.pyfunc.load_model(str(model_folder))


def saved_model(folder: Path, checkpoint: Path, held: int = 1_000_000) -> Path:
    """The model folder of a checkpoint that holds so many of its edges."""
    import mlflow.pyfunc  # noqa: F401

    (folder / "config.yaml").touch()
    files = files_of("runs/x", folder / "config.yaml", checkpoint, folder, strongest("runs/x", checkpoint, held))
    (folder / "made").mkdir()
    return save_model(files, folder / "made", described(files), None, None)


# --- what it predicts ---


@pytest.mark.parametrize("k", [1, 7, 30])
def test_it_predicts_the_edges_of_its_checkpoint(model: Any, checkpoint: Path, k: int):
    predicted = model.predict(None, params={"k": k})
    pd.testing.assert_frame_equal(predicted, edges_of_checkpoint(checkpoint, k).table)


def test_the_1000_strongest_are_meant_if_nothing_is_said_and_fewer_are_given_if_there_are_no_more(
    model: Any, checkpoint: Path
):
    everything = edges_of_checkpoint(checkpoint).table
    assert len(everything) == 30
    for empty in (None, pd.DataFrame(), pd.DataFrame([{}])):
        pd.testing.assert_frame_equal(model.predict(empty), everything)


@pytest.mark.parametrize(("regulators", "targets"), LISTS)
@pytest.mark.parametrize("edges", ["directed", "undirected"])
def test_lists_choose_what_infer_chooses(regulators: str, targets: str, edges: Any, tmp_path: Path):
    import mlflow.pyfunc

    checkpoint = saved(tmp_path, catran(edges))
    model = mlflow.pyfunc.load_model(str(saved_model(tmp_path, checkpoint)))
    names, files = {}, {}
    for what, text in (("regulators", regulators.lower()), ("targets", targets.lower())):
        if text:
            names[what] = text.split()
            files[what] = tmp_path / what
            files[what].write_text("\n".join(names[what]))
    expected = edges_of_checkpoint(checkpoint, at_most=1000, lists=GeneLists(**files)).table
    assert len(expected) > 1
    pd.testing.assert_frame_equal(model.predict(None, params=names), expected)
    pd.testing.assert_frame_equal(model.predict(None, params=names | {"k": 2}), expected.head(2))


def test_the_signature_says_what_goes_in_and_out(model: Any):
    signature = model.metadata.signature
    assert signature.inputs is None
    assert signature.outputs.input_names() == ["regulator", "target", "weight"]
    assert {spec.name: spec.default for spec in signature.params.params} == {"k": 1000, "regulators": [], "targets": []}
    about = model.metadata.metadata["grndist"]
    assert (about["edges"], about["complete"], about["model"]) == (30, True, "grn_vae")


# --- what it refuses ---


@pytest.mark.parametrize(
    ("given", "params", "words"),
    [
        (None, {"k": 0}, "k is 0; give the number of edges, at least 1"),
        (None, {"k": -3}, "k is -3"),
        (None, {"regulators": ["G1", "G77"]}, "'G77' is neither one of the network's 6 genes nor a regulator"),
        (pd.DataFrame({"k": [5]}), None, r"takes no input \(got the columns \['k'\]\).*params=\{\"k\": 1000\}"),
    ],
)
def test_what_is_wrong_is_said(model: Any, given: Any, params: Any, words: str):
    import mlflow

    with pytest.raises(mlflow.MlflowException, match=words):
        model.predict(given, params=params)


def test_a_model_that_holds_the_strongest_only_says_what_it_does_not_know(checkpoint: Path, tmp_path: Path):
    import mlflow

    everything = edges_of_checkpoint(checkpoint).table
    model = mlflow.pyfunc.load_model(str(saved_model(tmp_path, checkpoint, 10)))
    assert model.metadata.metadata["grndist"]["complete"] is False
    pd.testing.assert_frame_equal(model.predict(None, params={"k": 10}), everything.head(10))
    first = everything["regulator"][0]
    known = everything.head(10).query("regulator == @first").reset_index(drop=True)
    asked = {"regulators": [first], "k": len(known)}
    pd.testing.assert_frame_equal(model.predict(None, params=asked), known)
    for params in ({"k": 11}, asked | {"k": len(known) + 1}, {}):
        with pytest.raises(
            mlflow.MlflowException, match=r"holds the 10 strongest of its network.*grndist infer DIR -k"
        ):
            model.predict(None, params=params)


# --- how it is kept ---


def test_the_registered_model_is_the_logged_one(client: Any, logged: Tracker, model_folder: Path):
    (version,) = client.search_model_versions("name = 'grn'")
    assert version.run_id == logged.run_id
    assert _local(version.source) == model_folder


def test_it_holds_the_checkpoint_and_its_requirements(model_folder: Path, checkpoint: Path):
    inside = model_folder / "artifacts" / "checkpoint"
    for name in ("weights.safetensors", "checkpoint.json"):
        assert (inside / name).read_bytes() == (checkpoint / name).read_bytes()
    needs = (model_folder / "requirements.txt").read_text().splitlines()
    assert needs == requirements()
    assert [re.sub("==.*", "", need) for need in needs] == ["mlflow-skinny", "numpy", "pandas", "pyarrow"]
    about = json.loads((model_folder / "artifacts" / "network.json").read_text())
    assert about["store_digest"] == "d" * 64


@pytest.mark.slow
def test_it_loads_where_only_its_requirements_are_installed(model_folder: Path, checkpoint: Path, tmp_path: Path):
    program = """
import importlib.util, json, sys
for absent in ("grndist", "torch", "sqlalchemy", "safetensors", "pydantic_settings"):
    assert importlib.util.find_spec(absent) is None, absent
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
model.predict(None, params={"k": 7}).to_parquet("top.parquet")
model.predict(None, params={"regulators": ["G2"], "targets": ["G1", "G3"]}).to_parquet("listed.parquet")
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", model_folder / "requirements.txt"], check=True)
    command = [python, "-I", "-c", program, str(model_folder)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    everything = edges_of_checkpoint(checkpoint).table
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "top.parquet"), everything.head(7))
    chosen = everything[(everything["regulator"] == "G2") & everything["target"].isin(["G1", "G3"])]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "listed.parquet"), chosen.reset_index(drop=True))
