import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.simulate import Simulation, SimulationConfig, simulate
from grndist.data.store import open_store
from grndist.data.view import View, whole


@pytest.fixture(scope="session")
def simulation() -> Simulation:
    return simulate(SimulationConfig(cells=1200, genes=40, regulators=10, perturbed_share=0.6, difficulty="easy"))


@pytest.fixture(scope="session")
def stored(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory):
    """Writes a part of the simulation, its genes in any order, as a sparse or a dense store."""

    def written(n_genes: int = 40, n_cells: int = 1200, order_seed: int | None = None, profile: str = "train") -> View:
        genes = np.arange(n_genes)
        order = genes if order_seed is None else np.random.default_rng(order_seed).permutation(genes)
        path = tmp_path_factory.mktemp("screen") / "s.zarr"
        labels = pd.DataFrame({"perturbation": list(simulation.perturbation[:n_cells])})
        names = pd.DataFrame(index=[simulation.genes[gene] for gene in order])
        counts = sparse.csr_matrix(simulation.counts)[:n_cells][:, order]
        write_store(path, counts, labels.set_axis([f"cell{i}" for i in range(n_cells)]), names, "counts",
                    {"name": "simulated"}, profile=profile)  # fmt: skip
        return whole(open_store(path))

    return written


@pytest.fixture(scope="session")
def view(stored) -> View:
    return stored()
