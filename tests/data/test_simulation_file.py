import hashlib
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from grndist.data.simulate import SimulationConfig, simulate
from grndist.data.simulation_file import network_path, write_simulation
from grndist.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SMALL = SimulationConfig(cells=600, genes=60, regulators=12, seed=3)


def test_the_file_holds_counts_labels_roles_and_settings(tmp_path: Path):
    simulation = simulate(SMALL)
    edges = write_simulation(simulation, tmp_path / "toy.h5ad")
    data = anndata.read_h5ad(tmp_path / "toy.h5ad")
    assert data.X.dtype == np.int32
    assert (simulation.counts != data.X).nnz == 0
    assert isinstance(data.obs["perturbation"].dtype, pd.CategoricalDtype)
    assert tuple(data.obs["perturbation"]) == simulation.perturbation
    assert data.obs_names.is_unique
    assert tuple(data.var_names) == simulation.genes
    assert data.var["is_regulator"].dtype == bool
    assert data.var["is_regulator"].sum() == 12
    recorded = data.uns["simulation"]
    assert (recorded["seed"], recorded["difficulty"], recorded["cells"]) == (3, "realistic", 600)
    assert recorded["conditions"]["molecules"] == 3
    assert edges == tmp_path / "toy.network.tsv"
    pd.testing.assert_frame_equal(pd.read_csv(edges, sep="\t", float_precision="round_trip"), simulation.network)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["toy.h5ad", "toy.network.tsv"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() + network_path(path).read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path):
    write_simulation(simulate(SMALL), tmp_path / "here.h5ad")
    program = (
        "import sys; from pathlib import Path; from grndist.data.simulate import *; "
        "from grndist.data.simulation_file import write_simulation; "
        "write_simulation(simulate(SimulationConfig(cells=600, genes=60, regulators=12, seed=3)), Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "17", "OMP_NUM_THREADS": "1", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", program, str(tmp_path / "there.h5ad")]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)
    assert digest(tmp_path / "here.h5ad") == digest(tmp_path / "there.h5ad")


@pytest.mark.parametrize("taken", ["toy.h5ad", "toy.network.tsv"])
def test_an_existing_file_is_only_replaced_when_asked(tmp_path: Path, taken: str):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=f"{taken} exists already; pass --overwrite"):
        write_simulation(simulate(SMALL), tmp_path / "toy.h5ad")
    assert [file.name for file in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"
    write_simulation(simulate(SMALL), tmp_path / "toy.h5ad", overwrite=True)
    assert anndata.read_h5ad(tmp_path / "toy.h5ad").shape == (600, 60)


def test_nothing_is_left_when_the_data_cannot_be_written(tmp_path: Path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    simulation = simulate(SMALL)
    (tmp_path / "toy.h5ad").write_text("mine")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the network fits, the counts do not
    try:
        with pytest.raises(UserError, match=r"toy\.h5ad: could not be written \(File too large\)"):
            write_simulation(simulation, tmp_path / "toy.h5ad", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["toy.h5ad"]
    assert (tmp_path / "toy.h5ad").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [("toy.zarr", r"toy\.zarr: .* ends in \.h5ad"), ("missing/toy.h5ad", "missing does not exist; create it")],
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, name: str, words: str):
    with pytest.raises(UserError, match=words):
        write_simulation(simulate(SMALL), tmp_path / name)
