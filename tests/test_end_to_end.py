"""From counts to scores through the command line; what the commands leave is checked against each other."""

import contextlib
import json
import shlex
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from grndist.genes import NON_TARGETING
from tests.test_cli import done

N_CELLS, N_GENES, N_REGULATORS = 400, 40, 8
RUN = {"store": "data.zarr", "training": {"epochs": 3, "cells_per_step": 50, "log_every": 2, "checkpoint_every": 4}}
RUNS = {
    "catran": {"model": {"kind": "catran", "embedding": 8}, **RUN},
    "dazzle": {"preset": "dazzle", **RUN},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole chain with both models; each `next:` line that is complete is followed to the letter."""
    folder = tmp_path_factory.mktemp("chain")
    with contextlib.chdir(folder):
        size = f"--cells {N_CELLS} --genes {N_GENES} --regulators {N_REGULATORS} --seed 5"
        done(next_of(done(f"simulate data.h5ad {size}")))
        for name, settings in RUNS.items():
            Path(f"{name}.yaml").write_text(yaml.safe_dump(settings))
            done(next_of(done(f"train {name}.yaml")))  # writes runs/<name>/edges.parquet, 1,000 edges
            done(f"infer runs/{name} --all -o {name}.parquet")
            done(f"evaluate {name}.parquet --reference data.network.tsv --store data.zarr -o {name}.json")
            done(f"evaluate {name}.parquet --reference data.network.tsv --all-pairs -o {name}.all.json")
    return folder


@pytest.fixture(params=list(RUNS))
def name(request: pytest.FixtureRequest, chain: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the two runs; one stands in the folder of the chain."""
    monkeypatch.chdir(chain)
    return request.param


def next_of(printed: str) -> str:
    return printed.split("next: grndist ")[1].strip()


# --- the artefacts agree ---


def test_the_store_is_an_anndata_of_the_simulated_cells(chain: Path):
    store, source = anndata.read_zarr(chain / "data.zarr"), anndata.read_h5ad(chain / "data.h5ad")
    assert store.shape == (N_CELLS, N_GENES)
    assert list(store.var_names) == list(source.var_names)
    source = source[store.obs_names]
    assert np.array_equal(store.X.toarray(), source.X.toarray())
    assert list(store.obs["perturbation"]) == list(source.obs["perturbation"])
    assert not np.array_equal(store.obs["source_row"], np.arange(N_CELLS))


def test_the_edge_list_is_over_the_genes_of_the_store(name: str):
    edges = pd.read_parquet(f"{name}.parquet")
    genes = list(anndata.read_zarr("data.zarr").var_names)
    assert len(edges) == N_GENES * (N_GENES - 1)
    assert set(edges["regulator"]) == set(edges["target"]) == set(genes)
    assert not (edges["regulator"] == edges["target"]).any()
    assert (np.diff(edges["weight"].abs()) <= 0).all()
    about = json.loads(pq.read_schema(f"{name}.parquet").metadata[b"grndist"])
    assert about["genes"] == genes
    assert about["signed"] == (name == "dazzle")  # attention has no signs
    assert Path(about["origin"]["run"]).samefile(f"runs/{name}")
    config = yaml.safe_load(Path(f"runs/{name}/config.yaml").read_text())
    assert about["origin"]["store_digest"] == config["store_digest"]


def test_the_sizes_asked_for_are_cuts_of_the_whole_list(name: str, tmp_path: Path):
    whole = pd.read_parquet(f"{name}.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(f"runs/{name}/edges.parquet"), whole.head(1000))
    done(f"infer runs/{name} -k 7 -o {tmp_path}/top.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "top.csv", float_precision="round_trip"), whole.head(7))
    threshold = float(whole["weight"].abs()[99])
    done(f"infer runs/{name} --threshold {threshold!r} -o {tmp_path}/strong.tsv")
    strong = pd.read_csv(tmp_path / "strong.tsv", sep="\t", float_precision="round_trip")
    pd.testing.assert_frame_equal(strong, whole[whole["weight"].abs() >= threshold])


# --- the scores, recomputed ---


def dense(table: pd.DataFrame, values: np.ndarray, genes: list[str]) -> np.ndarray:
    place = {gene: column for column, gene in enumerate(genes)}
    matrix = np.zeros((len(genes), len(genes)))
    matrix[table["regulator"].map(place), table["target"].map(place)] = values
    return matrix


def candidates(reference: pd.DataFrame, genes: list[str], all_pairs: bool) -> np.ndarray:
    names = set(reference["regulator"]) | set(reference["target"])
    regulators = names if all_pairs else set(reference["regulator"])
    rows, columns = np.isin(genes, list(regulators)), np.isin(genes, list(names))
    return rows[:, None] & columns & ~np.eye(len(genes), dtype=bool)


def expected(score: np.ndarray, is_true: np.ndarray, lineage: str) -> dict[str, float]:
    k, n = int(is_true.sum()), len(is_true)
    kth = np.sort(score)[-k]
    if lineage == "DAZZLE":
        early, area = (is_true & (score > kth)).sum() / k, average_precision_score(is_true, score)
    else:
        top = (score >= kth) & (score > 0)
        precision, recall, _ = precision_recall_curve(is_true, score)
        early, area = is_true[top].mean(), auc(recall, precision)
    return {"EPR": early * n / k, "AUPRC": area, "AUPRC ratio": area * n / k}


def log1p(counts: np.ndarray) -> np.ndarray:
    """Scaled to the median library size and logged, in float32 like what a model sees, so that near ties rank alike."""
    totals = counts.sum(axis=1, keepdims=True, dtype=float)
    scale = np.median(totals) / np.maximum(totals, 1)
    return np.log1p(counts.astype(np.float32) * scale.astype(np.float32))


@pytest.mark.parametrize("all_pairs", [False, True])
def test_the_scores_are_those_of_the_edge_list_the_reference_and_the_store(name: str, all_pairs: bool):
    scores = json.loads(Path(f"{name}.all.json" if all_pairs else f"{name}.json").read_text())
    data = anndata.read_zarr("data.zarr")
    genes = list(data.var_names)
    edges, reference = pd.read_parquet(f"{name}.parquet"), pd.read_csv("data.network.tsv", sep="\t")
    true = dense(reference, np.ones(len(reference)), genes) > 0
    correlation = np.abs(np.corrcoef(log1p(data.X.toarray()).astype(float).T))
    correlation = np.round(correlation, 12)  # NumPy's is not quite symmetric, but both directions of a pair tie
    rankings = {"network": dense(edges, edges["weight"].abs(), genes), "absolute correlation": correlation}
    assert scores["reference_edges"] == len(reference)
    checked = 0
    for row in scores["scores"]:
        pairs = candidates(reference, genes, all_pairs and row["lineage"] == "BEELINE")
        assert (row["k"], row["candidates"]) == (true.sum(), pairs.sum())
        if row["method"] in rankings:
            found = expected(rankings[row["method"]][pairs], true[pairs], row["lineage"])
            for measure, value in found.items():
                assert row[measure] == pytest.approx(value, rel=1e-5), (row["method"], row["lineage"], measure)
            checked += 1
    assert checked == (
        2 if all_pairs else 4
    )  # correlation takes a store, which the scores over all pairs were not given
    chance = [row for row in scores["scores"] if row["method"] == "random"]
    assert [row["AUPRC ratio"] for row in chance] == pytest.approx([1, 1], abs=0.2)


# --- MLflow ---


@pytest.fixture
def tracked(name: str, chain: Path) -> tuple[Any, Any]:
    """MLflow's client and the run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{chain}/runs/mlflow.db")
    run_id = json.loads(Path(f"runs/{name}/tracking.json").read_text())["run_id"]
    return client, client.get_run(run_id)


def test_mlflow_has_the_settings_the_store_and_the_numbers(name: str, tracked: tuple[Any, Any]):
    client, run = tracked
    config = yaml.safe_load(Path(f"runs/{name}/config.yaml").read_text())
    assert (run.info.run_name, run.info.status) == (name, "FINISHED")
    assert run.data.params["model.kind"] == config["model"]["kind"]
    assert run.data.params["training.epochs"] == "3"
    assert run.data.params["store_digest"] == config["store_digest"] == run.data.tags["grndist.store_digest"]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "data.zarr"
    lines = [json.loads(line) for line in Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 12  # of 24 steps, every other one
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(line["step"], line["loss"]) for line in lines]


def test_mlflow_has_the_config_the_edge_list_the_scores_and_the_model(
    name: str, tracked: tuple[Any, Any], tmp_path: Path
):
    client, run = tracked
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert yaml.safe_load((folder / "config.yaml").read_text()) == yaml.safe_load(
        Path(f"runs/{name}/config.yaml").read_text()
    )
    for logged, own in (("edges/edges.parquet", f"runs/{name}/edges.parquet"), (f"edges/{name}.parquet",) * 2):
        assert (folder / logged).read_bytes() == Path(own.removeprefix("edges/")).read_bytes()
    scores = json.loads(Path(f"{name}.all.json").read_text())["scores"]  # the last ones
    (network,) = [row for row in scores if (row["method"], row["lineage"]) == ("network", "DAZZLE")]
    assert json.loads((folder / "scores.json").read_text())["DAZZLE EPR"] == network["EPR"]
    assert run.data.metrics["DAZZLE AUPRC ratio"] == network["AUPRC ratio"]
    (model,) = run.outputs.model_outputs
    logged = client.get_logged_model(model.model_id)
    assert (logged.status, logged.name) == ("READY", "network")


def test_the_model_in_mlflow_predicts_the_edge_list(name: str, tracked: tuple[Any, Any]):
    import mlflow.pyfunc

    client, run = tracked
    (model,) = run.outputs.model_outputs
    loaded = mlflow.pyfunc.load_model(client.get_logged_model(model.model_id).artifact_location)
    predicted = loaded.predict(None, params={"k": 50})
    pd.testing.assert_frame_equal(predicted, pd.read_parquet(f"{name}.parquet").head(50))


# --- seeds ---


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Path("data.zarr").absolute()
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml.safe_dump(RUNS[name] | {"store": str(store), "tracking": {"kind": "none"}}))

    def edge_lists(*arguments: str) -> list[bytes]:
        done(shlex.join(["train", "run.yaml", "--overwrite", *arguments]))
        for ending in ("parquet", "tsv", "csv.gz"):
            done(f"infer runs/run -k 1500 --overwrite -o edges.{ending}")
        return [Path(f"edges.{ending}").read_bytes() for ending in ("parquet", "tsv", "csv.gz")]

    first, again, other = edge_lists(), edge_lists(), edge_lists("training.seed=1")
    assert first == again
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_the_same_seed_gives_the_same_data_and_another_one_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for data, seed in (("first", 7), ("again", 7), ("other", 8)):
        done(f"simulate {data}.h5ad --cells 80 --genes 20 --regulators 4 --seed {seed}")
        done(f"ingest {data}.h5ad {data}.zarr")
    networks = {data: Path(f"{data}.network.tsv").read_bytes() for data in ("first", "again", "other")}
    counts = {data: anndata.read_zarr(f"{data}.zarr").X.toarray() for data in networks}
    assert networks["first"] == networks["again"] != networks["other"]
    assert np.array_equal(counts["first"], counts["again"])
    assert not np.array_equal(counts["first"], counts["other"])


# --- real data ---


@pytest.fixture(scope="module")
def papalexi(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the cells that clearly have one guide."""
    folder = tmp_path_factory.mktemp("papalexi")
    source = data_dir / "papalexi_eccite_subset" / "papalexi_lowmoi.h5ad"
    with contextlib.chdir(folder):
        printed = done(f"ingest {shlex.quote(str(source))} papalexi.zarr --where 'grna_max_frac > 0.9'")
    assert "perturbed genes in the panel: 9" in printed
    return folder / "papalexi.zarr"


def test_papalexi_knock_outs_of_the_interferon_pathway_lower_stat1(papalexi: Path):
    data = anndata.read_zarr(papalexi)
    expression = pd.DataFrame(log1p(data.X.toarray()), columns=data.var_names)
    means = expression.groupby(data.obs["perturbation"].to_numpy()).mean()
    measured = means.index.intersection(data.var_names)
    assert len(measured) == 9
    changes = (means.loc[measured] - means.loc[NON_TARGETING]).stack()
    changes = changes[changes.index.get_level_values(0) != changes.index.get_level_values(1)]
    assert len(changes) == 9 * 298
    ranks = changes.abs().rank(ascending=False) / len(changes)
    for knocked_out in ("IFNGR2", "JAK2"):
        assert changes[knocked_out, "STAT1"] < 0
        assert ranks[knocked_out, "STAT1"] <= 0.05


def test_catran_with_interventions_trains_on_papalexi(papalexi: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(papalexi.parent)
    settings = {
        "model": {"kind": "catran", "embedding": 8},
        "training": {"epochs": 2, "cells_per_step": 1024, "genes_per_step": 100, "log_every": 1},
        "tracking": {"kind": "none"},
        "store": "papalexi.zarr",
    }
    Path("small.yaml").write_text(yaml.safe_dump(settings))
    done("train small.yaml")
    lines = [json.loads(line) for line in Path("runs/small/metrics.jsonl").read_text().splitlines()]
    losses = pd.DataFrame(lines)
    assert len(losses) > 20
    assert np.isfinite(losses.to_numpy()).all()
    assert (losses["interventional"] > 0).all()
    done("infer runs/small --all -o edges.parquet")
    edges = pd.read_parquet("edges.parquet")
    assert set(edges["regulator"]) == set(anndata.read_zarr(papalexi).var_names)


def test_mdc_opens_as_an_anndata(data_dir: Path, tmp_path: Path):
    source = data_dir / "beeline_mDC_TFs500" / "ExpressionData.csv"
    done(f"ingest {shlex.quote(str(source))} {tmp_path}/mdc.zarr --genes-in-rows")
    data, table = anndata.read_zarr(tmp_path / "mdc.zarr"), pd.read_csv(source, index_col=0)
    assert data.shape == (383, 821)
    ours = pd.DataFrame(data.X.toarray().T, data.var_names, data.obs_names)
    assert np.array_equal(ours.loc[table.index, table.columns], table.to_numpy(np.float32))


def test_catran_d_recovers_a_simulated_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done(next_of(done("simulate s.h5ad --cells 2000 --genes 60 --regulators 12 --difficulty easy --seed 3")))
    Path("d.yaml").write_text(yaml.safe_dump({"preset": "catran_d", "store": "s.zarr"}))
    done("train d.yaml")
    done("infer runs/d --all")
    done("evaluate runs/d/edges.parquet --reference s.network.tsv --store s.zarr -o d.json")
    rows = {
        row["method"]: row for row in json.loads(Path("d.json").read_text())["scores"] if row["lineage"] == "BEELINE"
    }
    assert rows["network"]["AUPRC ratio"] > rows["absolute correlation"]["AUPRC ratio"] > rows["random"]["AUPRC ratio"]
    assert rows["network"]["sign agreement"] > 0.8
