"""Fixtures: the folder of real data sets, and small stores made on the spot."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads cost more than they save on tiny tensors

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.store import Store, open_store
from grndist.genes import NON_TARGETING

# Busy machines: how long an example takes says nothing. What has to hold before a change lands is asked of the same
# examples every time; new ones are looked for elsewhere.
settings.register_profile("grndist", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("grndist")


def pytest_addoption(parser: pytest.Parser) -> None:
    default = Path(__file__).parent.parent.parent / "shared" / "data"
    parser.addoption("--data-dir", type=Path, default=default, help="folder of the real data sets")


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--data-dir")
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; give --data-dir")
    return folder


LABELS = [NON_TARGETING, "g1", "g3", "g1+g3", "elsewhere"]


def small_counts(n_cells: int = 300, n_genes: int = 12, seed: int = 0) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Poisson counts and obs; g1 and g3 are perturbed, one label is combined, one is of no gene of the panel."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(LABELS, size=n_cells, p=[0.4, 0.25, 0.25, 0.05, 0.05])
    counts = rng.poisson(rng.uniform(0.2, 2, n_genes), (n_cells, n_genes))
    counts[labels == "g1", 1] = 0
    counts[labels == "g1", 5] *= 3
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(n_cells)])
    return sparse.csr_matrix(counts), obs


def genes(n_genes: int) -> pd.DataFrame:
    return pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])


@pytest.fixture(scope="session")
def pristine_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store to copy."""
    counts, obs = small_counts()
    path = tmp_path_factory.mktemp("pristine") / "small.zarr"
    write_store(path, counts, obs, genes(12), "counts", {"name": "made here"})
    return path


@pytest.fixture
def store_path(pristine_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine_store, tmp_path / "small.zarr"))


@pytest.fixture
def store(store_path: Path) -> Store:
    return open_store(store_path)
