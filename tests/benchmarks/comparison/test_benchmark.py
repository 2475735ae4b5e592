import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from grndist.benchmarks.comparison.drive import run_benchmark
from grndist.data.selection import SelectionConfig, select
from grndist.data.selection.cell_filters import CellsConfig
from grndist.data.store import open_store
from grndist.errors import UserError
from grndist.evaluation.baselines import baseline_edges
from grndist.evaluation.evaluate import comparisons
from grndist.evaluation.interventional import OmissionConfig, curve
from grndist.evaluation.references import read_reference
from grndist.files import locked
from grndist.tracking.keys import mlflow_key
from tests.benchmarks.comparison.conftest import benchmark_file
from tests.test_cli import done, grndist


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    text = done(f"benchmark {benchmark_file(folder)}")
    assert "14 of 14 cells without failure" in text
    assert "next: look at" in text
    return folder / "out"


def part(store: Path, *split: str):
    return select(open_store(store), SelectionConfig(cells=CellsConfig(split=split)))


def cells(out: Path) -> dict[str, tuple[int, str]]:
    """The time of change and the content of every cell's file."""
    files = (out / "cells").glob("*/*/seed*.json")
    return {str(file.relative_to(out)): (file.stat().st_mtime_ns, file.read_text()) for file in files}


def values(out: Path, **where: object) -> pd.DataFrame:
    table = pd.read_parquet(out / "scores.parquet")
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def same_scores(one: Path, other: Path) -> None:
    columns = ["data_set", "method", "seed", "reference", "lineage", "k", "measure", "value"]
    tables = (values(one), values(other))
    both = [table[table["measure"] != "seconds"][columns].sort_values(columns[:-1]) for table in tables]
    pd.testing.assert_frame_equal(*[table.reset_index(drop=True) for table in both])


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_the_methods_own_commands(out: Path, seed: int):
    folder = out / "data" / "screen" / f"seed{seed}"
    edges = baseline_edges(part(folder / "store.zarr", "train"), "correlation")
    truth = read_reference(folder / "simulated.network.tsv")
    perturbed = set(open_store(folder / "store.zarr").obs["perturbation"]) - {"non-targeting"}
    tested = edges.table[edges.table["regulator"].isin(perturbed)]
    found = curve(
        part(folder / "store.zarr", "test"), type(edges)(tested, edges.genes), [3, 5], None, OmissionConfig(pairs=0)
    )
    own = {"data_set": "screen", "method": "correlation", "seed": seed}
    distances = values(out, **own, measure="mean_wasserstein").sort_values("k")["value"]
    assert distances.tolist() == pytest.approx(found["mean_wasserstein"].tolist())
    panel = set(open_store(folder / "store.zarr").panel.names)
    listed = type(edges)(tested, edges.genes)
    for one in comparisons(truth, panel, all_pairs=True):
        kept = values(out, **own, lineage=one.lineage.name.lower(), measure="auprc_ratio")
        if one.candidates.count(listed.table) >= one.k:
            assert kept["value"].item() == pytest.approx(one.network(listed)["AUPRC ratio"])
        else:
            assert "candidate edges" in kept["reason"].item()


def test_data_of_another_seed_are_other_data_and_those_without_are_the_same(out: Path):
    digests = {path.parent.name: open_store(path).digest for path in (out / "data" / "screen").glob("*/store.zarr")}
    assert set(digests) == {"seed0", "seed1"}
    assert len(set(digests.values())) == 2
    assert [path.name for path in (out / "data" / "atlas").iterdir()] == ["all"]


def test_a_method_without_a_seed_is_asked_once_and_one_of_no_use_says_why(out: Path):
    assert set(values(out, data_set="atlas", method="correlation")["seed"]) == {0}
    assert set(values(out, data_set="atlas", method="random")["seed"]) == {0, 1}
    none = values(out, data_set="atlas", method="mean difference")
    assert none["reason"].tolist() == ["no gene is perturbed there"]
    rows = {line.split("|")[1].strip(): line for line in (out / "table.md").read_text().splitlines() if "|" in line}
    assert "- [1]" in rows["mean difference"] or "- [2]" in rows["mean difference"]
    assert "no gene is perturbed there" in (out / "table.md").read_text()


def test_the_table_is_the_mean_and_the_deviation_over_seeds(out: Path):
    rows = json.loads((out / "table.json").read_text())["comparison"]
    (row,) = [
        row
        for row in rows
        if (row["measure"], row["method"], row["column"]) == ("mean_wasserstein", "random", "screen, K=5")
    ]
    found = values(out, data_set="screen", method="random", measure="mean_wasserstein", k=5)["value"].to_numpy()
    assert (row["mean"], row["sd"]) == pytest.approx((found.mean(), np.std(found, ddof=1)))
    assert f"{row['mean']:.3f} ({row['sd']:.3f})" in (out / "table.md").read_text()
    assert (out / "auprc_ratio.png").stat().st_size > 0


def test_mlflow_has_one_run_with_settings_means_and_files(out: Path, folder: Path):
    run_benchmark(benchmark_file(folder), {})
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "grndist"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["methods.CaTran.run.preset"] == "paper"
    rows = json.loads((out / "table.json").read_text())["comparison"]
    assert any(row["measure"] == "epr" for row in rows)
    for row in (row for row in rows if row["values"] and row["measure"] != "seconds"):
        key = mlflow_key(f"{row['measure']}.{row['column']}.{row['method']}")
        assert run.data.metrics[key] == pytest.approx(row["mean"]), key
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"table.md", "table.json", "scores.parquet", "auprc_ratio.png", "mean_wasserstein.png"} <= kept


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its start and its end
def test_cells_on_ray_are_those_of_this_process(out: Path, folder: Path, tmp_path: Path):
    done(f"benchmark {benchmark_file(tmp_path)} --address local")
    run_benchmark(benchmark_file(folder), {})
    same_scores(out, tmp_path / "out")


def test_a_cluster_and_processes_of_this_machine_are_not_both_asked(folder: Path):
    said = grndist(f"benchmark {benchmark_file(folder)} --jobs 2 --address local")
    assert said.status == 2
    assert "--jobs 2 is for this machine and --address local for a cluster; give one" in said.err


def test_the_same_command_computes_only_what_is_not_there(out: Path, folder: Path):
    before = cells(out)
    gone = "cells/screen/CaTran/seed1.json"
    (out / gone).unlink()
    run_benchmark(benchmark_file(folder), {"methods": {"partial correlation": "partial_correlation"}})
    after = cells(out)
    assert {name for name in after if name not in before} == {
        f"cells/{cell}.json" for cell in (
            "screen/partial correlation/seed0", "screen/partial correlation/seed1", "atlas/partial correlation/seed0",
        )
    }  # fmt: skip
    assert all(after[name] == before[name] for name in before if name != gone)
    again, once = json.loads(after[gone][1]), json.loads(before[gone][1])
    assert again["scores"] == once["scores"]


@pytest.mark.slow
def test_other_settings_are_another_cell(out: Path, folder: Path):
    before = cells(out)
    changed = {"methods": {"CaTran": {"overrides": {"atlas": {"training": {"steps": 4}}}}}}
    run_benchmark(benchmark_file(folder), changed)
    after = cells(out)
    assert {name for name in before if after[name] != before[name]} == {
        "cells/atlas/CaTran/seed0.json", "cells/atlas/CaTran/seed1.json",
    }  # fmt: skip


@pytest.mark.slow
def test_a_failure_is_recorded_the_rest_goes_on_and_it_is_tried_again(tmp_path: Path):
    diverging = {"training": {"learning_rate": 1e30}}
    file = benchmark_file(tmp_path, seeds=[0], methods={"CaTran": {"run": diverging}})
    report = run_benchmark(file, {"data_sets": {"screen": {"interventions": None}}})
    assert "failed: CaTran on screen, seed 0: " in report.text
    assert "next: the same command does what is missing or has failed" in report.text
    kept = json.loads((tmp_path / "out/cells/screen/CaTran/seed0.json").read_text())
    assert kept["status"] == "failed"
    assert "the loss is nan at step" in kept["reason"]
    assert "- [" in report.text
    assert not values(tmp_path / "out", data_set="screen", method="random", measure="epr").empty
    mended = {"methods": {"CaTran": {"run": {"training": {"learning_rate": 1e-4}}}}}
    assert "failed" not in run_benchmark(file, {**mended, "data_sets": {"screen": {"interventions": None}}}).text


def test_a_table_of_what_is_there_is_made_while_a_benchmark_is_at_work(out: Path, folder: Path):
    changes = {"seeds": [0, 1, 2]}
    (out / "work").mkdir()
    with locked(out / "lock", "held by this test"):
        text = run_benchmark(benchmark_file(folder), changes, only_table=True).text
        with pytest.raises(UserError, match="another benchmark is at work there; wait for it, or set out=FOLDER"):
            run_benchmark(benchmark_file(folder), changes)
    assert re.search(r"[68] of 20 cells are not computed yet", text)  # 8 where another test has changed two
    assert re.search(r"\| random .* \d\.\d\d \(\d\.\d\d\) n=2", text)
    assert "next: the same command does what is missing" in text
    assert (out / "work").is_dir()
    assert not (out / "data" / "screen" / "seed2").exists()


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_and_ends_as_one_that_was_never_stopped(folder: Path, out: Path, tmp_path: Path):
    file, own = benchmark_file(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "grndist.cli", "benchmark", str(file), "--jobs", "2"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(cells(own)) < 2:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    before = cells(own)
    assert 2 <= len(before) < 14
    run_benchmark(file, {})
    after = cells(own)
    assert all(after[name] == before[name] for name in before)
    run_benchmark(benchmark_file(folder), {})
    same_scores(out, own)
