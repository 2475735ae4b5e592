"""CaTran with interventions on Papalexi et al. 2021: where do IFNGR2 -> STAT1 and JAK2 -> STAT1 rank?

python scripts/experiment_papalexi.py [--data-dir ../shared/data] [--preset paper] [--seeds 0 1 2]

Ranks are among all (perturbed measured gene, other gene) pairs, 1 the best; the mean difference stands beside them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.ingest import IngestConfig, ingest
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.store import Store, open_store
from grndist.genes import CONTROL
from grndist.inference import edges_of_checkpoint
from grndist.runs import load_run, train_run

PAIRS = [("IFNGR2", "STAT1"), ("JAK2", "STAT1")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*", help="e.g. training.epochs=5")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "papalexi.zarr"
        source = args.data_dir / "papalexi_eccite_subset" / "papalexi_lowmoi.h5ad"
        print("\n".join(ingest(source, path, IngestConfig(where="grna_max_frac > 0.9")).lines))
        store = open_store(path)
        difference = mean_differences(store)
        report("mean difference", difference.abs())
        run_file = Path(folder) / "papalexi.yaml"
        run_file.write_text(f"preset: {args.preset}\nstore: {path}\nruns: {folder}/runs\ntracking: {{kind: none}}\n")
        figures = {}
        for seed in args.seeds:
            started = time.process_time()
            config = load_run(run_file, [f"name=seed{seed}", f"training.seed={seed}", *args.overrides])
            table = edges_of_checkpoint(Path(train_run(config).checkpoint)).table.set_index(["regulator", "target"])[
                "weight"
            ]
            ranks = report(f"{args.preset} seed {seed}", table.reindex(difference.index).fillna(0.0).abs())
            figures |= {f"{pair[0]}_rank_seed{seed}": rank for pair, rank in zip(PAIRS, ranks, strict=True)}
            print(f"  {time.process_time() - started:.0f} CPU-s")
    print(json.dumps({"figures": figures}))


def mean_differences(store: Store) -> pd.Series:
    """Mean of every target in cells with s knocked out minus its mean in control cells, log1p scale."""
    config = ExpressionConfig()
    values = sparse.csr_matrix(expression(store.read_rows(0, store.n_cells), store.totals, store, config)).toarray()
    control = values[store.perturbed == CONTROL].mean(axis=0)
    names = store.panel.names
    return pd.Series(
        {
            (names[s], names[t]): effect
            for s in np.unique(store.perturbed[store.perturbed >= 0])
            for t, effect in enumerate(values[store.perturbed == s].mean(axis=0) - control)
            if t != s
        }
    )


def report(method: str, strength: pd.Series) -> list[int]:
    """Print and return the rank of both pairs; a tie takes the mean rank."""
    ranks = strength.rank(ascending=False)
    found = [int(ranks[pair]) for pair in PAIRS]
    shown = ", ".join(
        f"{s} -> {t}: {rank} of {len(strength)} (top {100 * rank / len(strength):.1f} %)"
        for (s, t), rank in zip(PAIRS, found, strict=True)
    )
    print(f"{method}: {shown}")
    return found


if __name__ == "__main__":
    main()
