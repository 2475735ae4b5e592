"""What CaTran's paper claims, one choice at a time around preset `paper`.

python scripts/experiment_catran_claims.py simulator [--seeds 0 1 2] [--only hidden ...] [--set KEY=VALUE ...]
python scripts/experiment_catran_claims.py papalexi  [--seeds 0 1 2] [--only hidden ...] [--set KEY=VALUE ...]
python scripts/experiment_catran_claims.py genes_per_step [--seeds 0 1 2]

simulator: 300 genes, 50 regulators of which 25 % perturbed, 100 cells each and 3,000 controls, realistic; AUPRC ratio
(1 is chance) for pairs whose regulator was perturbed, was not, and all. papalexi: mean Wasserstein distance of the
top 30, 100 and 300 edges in held-out cells (`papalexi_data`). genes_per_step: a simulator panel of 2,000 genes.
With --set, settings of the run, only that variant is compared with `paper`. The screens are small, so training is
`--steps` steps of `--cells` cells in place of 25 epochs of 2,048.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from experiment_catran_d import simulated, trained
from papalexi_data import TOPS, splits
from seed_table import SeedTable

from grndist.data.ingest.build import write_store
from grndist.data.store import Store, open_store
from grndist.evaluation.baselines import random_scores, strata_scores

STRATA = ("perturbed", "unperturbed", "all")
CLAIMS: dict[str, dict[str, list[str]]] = {
    "input": {name: [f"expression.transform={name}"] for name in ("log1p", "clr")},
    "corruption": {name: [f"model.corruption={name}"] for name in ("permute_within_gene", "zero")},
    "hidden": {str(share): [f"model.hidden={share}"] for share in (0.15, 0.3, 0.55, 0.9)},
    "loss": {"squared": ["model.reconstruction_loss=squared"]},
    "optimizer": {"adamw": ["training.optimizer=adamw"]},
    "embedding": {str(d): [f"model.embedding={d}"] for d in (10, 20, 80, 160)},
    "interventional": {
        "none": ["model.interventional_weight=0"],
        "weight 10": ["model.interventional_weight=10"],
        "inverted": ["model.interventional_ratio=inverted"],
        "inverted, weight 10": ["model.interventional_ratio=inverted", "model.interventional_weight=10"],
    },
    "steps": {str(steps): [f"training.steps={steps}"] for steps in (100, 1600)},
}
GENES_PER_STEP = {str(genes): [f"training.genes_per_step={genes}"] for genes in (250, 1000, 2000)}
Case = tuple[int, Store, Callable[[np.ndarray], list]]  # a seed, a store, what the scores of its edges are worth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["simulator", "papalexi", "genes_per_step"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    headings = [f"W1 top {top}" for top in TOPS] if args.data == "papalexi" else STRATA
    table = SeedTable(f"{args.data}, {args.steps} steps", headings, against="paper")
    length = ["training.epochs=null", f"training.steps={args.steps}", f"training.cells_per_step={args.cells}"]
    for seed, store, worth in cases(args):
        n_genes = store.n_genes
        table.add("random", worth(random_scores(n_genes**2, seed, 0).reshape(n_genes, n_genes)))
        for name, overrides in variants(args).items():
            with TemporaryDirectory() as folder:
                settings = ["preset=paper", "name=run", f"training.seed={seed}", *length, *overrides]
                table.add(name, worth(trained(store, Path(folder), settings)))
    print(json.dumps({"figures": table.print(3 if args.data == "papalexi" else 2)}))


def variants(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name of a row -> what differs from `paper`."""
    if args.overrides:
        return {"paper": [], " ".join(args.overrides): args.overrides}
    if args.data == "genes_per_step":
        return {"paper": []} | {f"genes_per_step {name}": settings for name, settings in GENES_PER_STEP.items()}
    chosen = {f"{claim} {name}": settings for claim in args.only for name, settings in CLAIMS[claim].items()}
    return {"paper": []} | chosen


def cases(args: argparse.Namespace) -> Iterator[Case]:
    if args.data == "papalexi":
        for seed, store, held_out in splits(args.seeds):
            yield seed, store, held_out.of_strongest
        return
    large = args.data == "genes_per_step"
    genes, cells_each = (2000, 30) if large else (300, 100)
    screen = argparse.Namespace(
        seeds=args.seeds, controls=3000, cells_each=cells_each, difficulty="realistic", library=0.0
    )
    for seed, store, truth, perturbed in screens(screen, genes, 0.25):
        yield seed, store, worth_of(truth, perturbed)


def worth_of(truth: np.ndarray, perturbed: np.ndarray) -> Callable[[np.ndarray], list]:
    """A function from scores to the AUPRC ratio of each stratum."""

    def worth(scores: np.ndarray) -> list:
        found = strata_scores(scores, truth, perturbed)
        return [found.perturbed, found.unperturbed, found.all]

    return worth


def screens(args: argparse.Namespace, genes: int, perturbed: float) -> Iterator[tuple]:
    """Of every seed: the seed, a simulated store, its true edges, and which genes were perturbed."""
    for seed, counts, obs, names, state, truth in simulated(args, genes, perturbed, "weak"):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "screen.zarr"
            write_store(path, counts, obs, pd.DataFrame(index=list(names)), state, {"name": "screen"})
            store = open_store(path)
            yield seed, store, truth, np.isin(np.arange(genes), store.perturbed[store.perturbed >= 0])


if __name__ == "__main__":
    main()
