"""A benchmark of two small screens, one of them without perturbations, and what it says."""

from pathlib import Path

import pytest
import yaml

from grndist.config import Tree, merge

TINY = {"model": {"embedding": 4}, "training": {"epochs": None, "steps": 3, "cells_per_step": 40, "genes_per_step": 8}}
FILE: Tree = {
    "seeds": [0, 1],
    "methods": {
        "CaTran": {"run": {"preset": "paper", **TINY}},
        "correlation": "correlation",
        "mean difference": "mean_difference_z",
        "random": "random",
    },
    "data_sets": {
        "screen": {
            "kind": "simulation",
            "simulation": {"genes": 15, "regulators": 4, "cells": 200},
            "interventions": {"ks": [3, 5], "split": "test"},
            "all_pairs": True,
        },
        "atlas": {
            "kind": "simulation",
            "simulation": {"genes": 12, "regulators": 4, "cells": 100, "perturbed_share": 0},
            "by_seed": False,
        },
    },
}


def benchmark_file(folder: Path, **changes: object) -> Path:
    file = folder / "b.yaml"
    file.write_text(
        yaml.safe_dump(merge(FILE, {"out": str(folder / "out"), "data": str(folder)}, changes), sort_keys=False)
    )
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")
