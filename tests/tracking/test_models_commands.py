"""`grndist models`, and `models:/` wherever a run is accepted, with the SQLite store beside the runs."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.test_cli import done, grndist
from tests.tracking.networks import DAZZLE, trained

pytestmark = pytest.mark.slow  # five runs in a database of MLflow's


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def client(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(
        tracking_uri=f"sqlite:///{folder}/runs/mlflow.db", registry_uri=f"sqlite:///{folder}/runs/mlflow.db"
    )


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


# --- register ---


def test_list_and_show_have_what_was_registered():
    rows = {line.split()[0]: cells(line) for line in done("models list").splitlines()}
    assert rows["grn"][1:4] == ["2", "champion at 1", "grn_vae"]
    assert rows["other"][1:4] == ["1", "only at 1", "grn_vae"]
    versions = [cells(line) for line in done("models show grn").splitlines()[1:]]
    assert [row[:3] for row in versions] == [["1", "champion", "grn_vae"], ["2", "-", "grn_vae"]]
    assert [Path(row[5]).name for row in versions] == ["first", "second"]


def test_a_version_says_what_it_is(folder: Path):
    import yaml

    facts = dict(cells(line) for line in done("models show models:/grn@champion").splitlines())
    config = yaml.safe_load(Path("runs/first/config.yaml").read_text())
    assert facts["network"] == "models:/grn/1"
    assert facts["store_digest"] == config["store_digest"]
    assert facts["model"] == "grn_vae"
    assert facts["run"] == str(folder / "runs" / "first")
    assert facts["MLflow run"] == json.loads(Path("runs/first/tracking.json").read_text())["run_id"]
    (file,) = Path("runs/first").glob("*.scores.json")
    rows = [row for row in json.loads(file.read_text())["scores"] if row["method"] == "network"]
    (score,) = [row["EPR"] for row in rows if row["lineage"] == "DAZZLE"]
    assert float(facts["score.DAZZLE EPR"]) == float(facts["score now: DAZZLE EPR"]) == score


def test_what_was_logged_is_not_uploaded_again(client: Any):
    run_id = json.loads(Path("runs/second/tracking.json").read_text())["run_id"]
    before = client.get_run(run_id)
    assert "logged before" in done("models register runs/second --name grn")
    after = client.get_run(run_id)
    assert len(after.outputs.model_outputs) == len(before.outputs.model_outputs) == 1
    assert after.info.end_time == before.info.end_time
    assert len(client.search_model_versions("name='grn'")) == 2  # it was version 2, and stays it


def test_a_new_checkpoint_of_the_same_run_is_a_new_version(folder: Path, client: Any):
    trained(folder, "longer", DAZZLE)
    assert "models:/longer/1 is registered" in done("models register runs/longer --name longer")
    trained(folder, "longer", DAZZLE, "training.epochs=3 --overwrite")
    assert "models:/longer/2 is registered" in done("models register runs/longer --name longer --alias champion")
    done("infer runs/longer --all -o longer.tsv")
    done("infer models:/longer@champion --all -o champion.tsv")
    assert Path("champion.tsv").read_bytes() == Path("longer.tsv").read_bytes()


def test_a_run_outside_mlflow_is_logged_where_it_is_told(folder: Path, client: Any):
    uri = f"sqlite:///{folder}/runs/mlflow.db"
    printed = done(f"models register runs/apart --name apart --alias a --tracking-uri {uri}")
    assert "logged now, in a new run" in printed
    (version,) = client.search_model_versions("name='apart'")
    run = client.get_run(version.run_id)
    assert (run.info.run_name, run.info.status) == ("apart", "FINISHED")
    assert run.data.params["model.kind"] == "catran"
    assert version.tags["grndist.model"] == "catran"
    assert "was registered before" in done(f"models register runs/apart --name apart --tracking-uri {uri}")
    done("infer runs/apart --all -o here.tsv")
    done("infer models:/apart@a --all -o there.tsv")
    assert Path("here.tsv").read_bytes() == Path("there.tsv").read_bytes()


def test_a_run_whose_model_was_logged_without_edges_gets_them(
    folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
):
    import mlflow.pyfunc

    with monkeypatch.context() as patch:
        patch.setattr("grndist.runs.logged.PAIRS", 12 * 11)
        trained(folder, "large", DAZZLE)
    run_id = json.loads(Path("runs/large/tracking.json").read_text())["run_id"]
    (bare,) = client.get_run(run_id).outputs.model_outputs
    model = mlflow.pyfunc.load_model(client.get_logged_model(bare.model_id).artifact_location)
    with pytest.raises(Exception, match="logged without its edges, since the network is large"):
        model.predict(None, params={"k": 1})
    assert "logged now, with its edges in its own run" in done("models register runs/large --name large")
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(pd.read_parquet(pulled("large/1") / "edges.parquet")) == 12 * 11


def pulled(network: str) -> Path:
    out = Path(f"pulled {network.replace('/', ' ')}")
    done(f"models pull {network} -o '{out}'")
    return out


# --- where a run is accepted ---


@pytest.mark.parametrize("ending", ["parquet", "tsv"])
def test_infer_gives_the_same_bytes_as_from_the_run(ending: str):
    done(f"infer runs/first -k 50 -o run.{ending} --overwrite")
    for network in ("models:/grn@champion", "models:/grn/1"):
        done(f"infer {network} -k 50 -o registered.{ending} --overwrite")
        assert Path(f"run.{ending}").read_bytes() == Path(f"registered.{ending}").read_bytes()


def test_latest_is_the_newest_version():
    done("infer models:/other/latest -k 9 -o latest.tsv")
    done("infer runs/second -k 9 -o second.tsv")
    assert Path("latest.tsv").read_bytes() == Path("second.tsv").read_bytes()


def test_embeddings_and_neighbours():
    done("embeddings runs/vectors -o a.tsv")
    done("embeddings models:/vectors@now -o b.tsv")
    assert Path("a.tsv").read_bytes() == Path("b.tsv").read_bytes()
    gene = pd.read_csv("a.tsv", sep="\t")["gene"][0]
    assert done(f"neighbours models:/vectors@now {gene} -n 3") == done(f"neighbours runs/vectors {gene} -n 3")


@pytest.mark.slow
def test_latent_of_a_registered_network():
    import anndata

    done("latent models:/grn@champion -o z.h5ad --plot z.png --cells 40")
    done("latent runs/first -o y.h5ad --plot y.png --cells 40")
    z, y = anndata.read_h5ad("z.h5ad"), anndata.read_h5ad("y.h5ad")
    np.testing.assert_array_equal(z.obsm["z_mean"], y.obsm["z_mean"])
    assert z.uns["latent"]["run"] == y.uns["latent"]["run"]


def test_evaluate_scores_what_the_version_holds():
    done("evaluate models:/grn/1 --reference small.network.tsv -o registered.json")
    (file,) = Path("runs/first").glob("*.scores.json")
    assert json.loads(Path("registered.json").read_text()) == json.loads(file.read_text())


# --- promote, pull, compare ---


def test_an_alias_moves():
    done("models promote other 1 --alias best")
    assert done("models promote other 1 --alias best") == "best: version 1 of other, as before\n"
    done("models register runs/first --name other")
    assert done("models promote other 2 --alias best") == "best: version 2 of other, and was at 1\n"
    done("infer models:/other@best -k 5 -o best.tsv")
    done("infer runs/first -k 5 -o five.tsv")
    assert Path("best.tsv").read_bytes() == Path("five.tsv").read_bytes()


def test_a_pulled_network_is_a_run():
    out = pulled("grn@champion")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["checkpoints", "config.yaml", "edges.parquet", "network.json"]
    assert (out / "config.yaml").read_text() == Path("runs/first/config.yaml").read_text()
    pd.testing.assert_frame_equal(pd.read_parquet(out / "edges.parquet"), pd.read_parquet("runs/first/edges.parquet"))
    done(f"infer '{out}' --all -o pulled.tsv")
    done("infer runs/first --all -o whole.tsv")
    assert Path("pulled.tsv").read_bytes() == Path("whole.tsv").read_bytes()


def test_a_network_compared_with_itself_is_the_same():
    printed = done("models compare models:/grn@champion runs/first -k 5 -k 132")
    rows = re.findall(r"^ +(\d+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert rows == [("5", "1.000", "1.000"), ("132", "1.000", "1.000")]
    assert "rank correlation of the weights: 1.000" in printed
    assert "data: the same store" in printed
    assert "settings: the same" in printed


def test_two_networks_are_compared_in_everything():
    from scipy import stats

    printed = done("models compare runs/first models:/grn/2 -k 7")
    tables = [pd.read_csv(file, sep="\t") for file in inferred("first", "second")]
    dense = [table.pivot_table("weight", "regulator", "target", fill_value=0).to_numpy().ravel() for table in tables]
    off = ~np.eye(12, dtype=bool).ravel()
    expected = stats.spearmanr(dense[0][off], dense[1][off]).statistic
    assert f"rank correlation of the weights: {expected:.3f}" in printed
    tops = [set(zip(table["regulator"][:7], table["target"][:7], strict=True)) for table in tables]
    common = len(tops[0] & tops[1])
    assert re.search(rf"^ +7 +{common / 7:.3f} +{common / (14 - common):.3f}$", printed, re.MULTILINE)
    assert re.search(r"^DAZZLE EPR +[\d.]+ +-$", printed, re.MULTILINE)
    assert "  training.seed: 0, 7" in printed
    assert "  name: first, second" in printed


def inferred(*names: str) -> list[Path]:
    for name in names:
        done(f"infer runs/{name} --all -o {name}.all.tsv --overwrite")
    return [Path(f"{name}.all.tsv") for name in names]


def test_an_edge_list_is_compared_as_it_is():
    Path("few.csv").write_text("regulator,target,weight\ng1,g2,3\ng2,g3,-1\n")
    Path("turned.csv").write_text("regulator,target,weight\ng1,g2,3\ng3,g2,-1\n")
    printed = done("models compare few.csv turned.csv")
    assert re.search(r"^ +2 +0.500 +0.333$", printed, re.MULTILINE)
    assert "scores of few.csv: not known, it is only an edge list" in printed
    assert "data: not known of few.csv and turned.csv" in printed
    assert "settings: not known of few.csv and turned.csv" in printed


# --- mistakes ---


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "models show nothing",
            "no network called 'nothing' is registered at sqlite:.*there are .*grn.*models register RUN",
        ),
        ("models pull grn@nobody -o new", "grn has no alias nobody; its versions are 1, 2, its aliases champion at 1"),
        ("models promote grn 17", "grn has no version 17; its versions are 1, 2"),
        ("infer models:/grn/17 -o e.tsv", "grn has no version 17"),
        ("infer models:/grn -o e.tsv", "say which one, e.g. models:/grn/2"),
        ("infer models:/grn@champion", "nothing is written there; say where the result goes: -o edges.parquet"),
        ("embeddings models:/grn@champion", "say where the result goes: -o embeddings.parquet"),
        ("evaluate models:/grn/1 --reference small.network.tsv", "say where the result goes: -o"),
        ("infer models:/a/b/c -o e.tsv", "a registered network was expected: models:/NAME@ALIAS"),
        ("models register models:/grn/1 --name x", "is registered already"),
        ("models register runs/first --name a@b", "a name alone was expected"),
        ("models register runs/first --name a/b", "a registered network was expected"),
        ("models register runs/first --name x --alias latest", "'latest' alias name .* is reserved"),
        (
            "models register runs/apart --name x",
            r"was never logged in MLflow \(tracking.kind=none\).*--tracking-uri sqlite:///",
        ),
        ("models register runs --name x", "runs is not a run directory"),
        ("models pull grn/1 -o runs", "runs exists already; pass --overwrite"),
        ("models pull grn/1 -o runs --overwrite", "runs is not a run directory, so it is not replaced"),
        ("models list --runs nowhere", "nowhere/mlflow.db: no such file, so no run was logged there"),
        ("models list --tracking-uri sqlite:////nowhere/m.db", "/nowhere/m.db: no such file"),
        ("models list --tracking-uri http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 does not answer .*refused"),
        ("models list --tracking-uri mlruns", "--tracking-uri is not valid"),
        ("models compare runs/first models:/grn/17", "grn has no version 17"),
    ],
)
def test_a_mistake_is_one_message(line: str, words: str):
    said = grndist(line)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("grndist: ")
    assert re.search(words, said.err), said.err
    assert said.err.count("\n") <= 2
    assert not Path("new").exists()
    assert not Path("e.tsv").exists()
    assert "x" not in [line.split()[0] for line in done("models list").splitlines()]


def test_the_environment_says_where_networks_are(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/runs/mlflow.db")
    assert "champion at 1" in done("models list")
    done("infer models:/grn@champion -k 3 -o top.tsv")
    assert len(pd.read_csv("top.tsv", sep="\t")) == 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/another.db")
    said = grndist("infer models:/grn@champion -o e.tsv")
    assert (said.status, "another.db: no such file" in said.err) == (2, True)
