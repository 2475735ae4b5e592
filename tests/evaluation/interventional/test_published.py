"""Every number of the published package's statistical `Evaluator`, on data made here, for the same seed."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.store import open_store
from grndist.data.view import View, whole
from grndist.evaluation.interventional import CellEffects, effects_of, evaluate_network
from grndist.networks.edges import EdgeList
from tests.conftest import genes

GENES = [f"g{i}" for i in range(60)]
# The package's Evaluator always seeds Python's generator with 0; the last of a case is what it is given instead.
PROGRAM = """
import json, random, sys
import numpy as np
from causalscbench.evaluation.statistical_evaluation import Evaluator
values, labels, names, cases = np.load(sys.argv[1]), *json.loads(open(sys.argv[2]).read())
evaluator, seed_with = Evaluator(values, labels, names), random.seed
found = []
for edges, max_path_length, pairs, seed in cases:
    random.seed = lambda _: seed_with(seed)
    found.append(evaluator.evaluate_network([tuple(edge) for edge in edges], max_path_length, pairs > 0, pairs))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with causalbench 1.1.2: its Evaluator imports NumPy and SciPy alone, so that its others stay out."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    needed = ["causalbench==1.1.2", f"numpy=={np.__version__}", f"scipy=={scipy.__version__}"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", *needed]
    subprocess.run(pip, check=True)
    return python


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Sixty perturbed genes, groups of 3 to 40 cells, effects on some, many zeros; one gene without any zero or tie."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 41, len(GENES))
    labels = np.concatenate([np.repeat("non-targeting", 300), np.repeat(GENES, sizes)])
    values = rng.gamma(2, size=(len(labels), len(GENES))) * (rng.random((len(labels), len(GENES))) < 0.4)
    for gene in range(0, len(GENES), 2):
        values[labels == GENES[gene], (gene + 7) % len(GENES)] += rng.gamma(1)
    values[:, 9] = rng.permutation(len(labels)) + 1.0
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    write_store(path, sparse.csr_matrix(values.astype(np.float32)), obs, genes(60), "continuous", {"name": "made here"})
    return whole(open_store(path))


def drawn(n_edges: int, seed: int) -> list[tuple[str, str]]:
    pairs = np.random.default_rng(seed).permutation([(a, b) for a in range(60) for b in range(60) if a != b])
    return [(GENES[a], GENES[b]) for a, b in pairs[:n_edges]]


CASES = [
    (drawn(1, 0), 3, 50, 0), (drawn(30, 1), 3, 200, 0), (drawn(80, 2), 4, 100, 7), (drawn(50, 3), -1, 100, 1),
    (drawn(40, 4), 2, 500, 12), (drawn(25, 5), 0, 20, 2), (drawn(300, 6), 1, 100, 3), (drawn(1500, 7), 2, 0, 0),
    (list(pairwise(GENES[:9])), 5, 30, 5),
]  # fmt: skip


@pytest.fixture(scope="module")
def published(package: Path, view: View, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What the package says of every case."""
    folder = tmp_path_factory.mktemp("cases")
    values = np.concatenate([stored.toarray() for _, stored in view.whole_rows()])
    np.save(folder / "values.npy", values.astype(np.float64))
    labels = view.obs["perturbation"].astype(str).tolist()
    (folder / "cases.json").write_text(json.dumps([labels, GENES, CASES]))
    command = [package, "-W", "ignore", "-c", PROGRAM, folder / "values.npy", folder / "cases.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("source", [CellEffects, effects_of], ids=["cells", "atlas"])
def test_every_number_is_the_packages(published: list[dict], view: View, source: Callable):
    effects = source(view)
    for (edges, length, pairs, seed), theirs in zip(CASES, published, strict=True):
        network = EdgeList(pd.DataFrame(edges, columns=["regulator", "target"], dtype=object).assign(weight=1.0))
        ours = evaluate_network(effects, network, None if length == -1 else length, pairs, seed)
        assert ours["output_graph"] == approximately(theirs["output_graph"])
        assert ours["all_path_results"] == [approximately(one) for one in theirs["all_path_results"]]
        assert ours["false_omission_rate"] == theirs["false_omission_rate"]
        assert ours["negative_mean_wasserstein"] == pytest.approx(theirs["negative_mean_wasserstein"], rel=1e-12)
        assert (ours["untestable"], ours["self_edges"], ours["reasons"]) == (0, 0, [])


def approximately(verdict: dict) -> dict:
    """Counts as they are; a mean to the rounding of its sum, as the package's order of pairs is that of sets."""
    mean = pytest.approx(verdict["wasserstein_distance"]["mean"], rel=1e-12)
    return {**verdict, "wasserstein_distance": {"mean": mean}}
