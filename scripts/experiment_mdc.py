"""DAZZLE (or another preset) on BEELINE's mDC TFs+500, scored on its STRING network: EPR over seeds.

python scripts/experiment_mdc.py [--data-dir ../shared/data] [--preset dazzle] [--seeds 0 1 2]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from grndist.data.ingest import IngestConfig, ingest
from grndist.data.store import open_store
from grndist.evaluation.evaluate import evaluate, expression_of
from grndist.evaluation.references import read_reference
from grndist.inference import edges_of_checkpoint
from grndist.runs import load_run, train_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--preset", default="dazzle")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*", help="e.g. training.epochs=60")
    args = parser.parse_args()
    data = args.data_dir / "beeline_mDC_TFs500"
    reference = read_reference(data / "STRING" / "BL--network.csv")

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "mdc.zarr"
        ingest(data / "ExpressionData.csv", store, IngestConfig(orientation="genes_in_rows"))
        run_file = Path(folder) / "mdc.yaml"
        run_file.write_text(f"preset: {args.preset}\nstore: {store}\nruns: {folder}/runs\ntracking: {{kind: none}}\n")
        scores, table = [], None
        for seed in args.seeds:
            started = time.process_time()
            config = load_run(run_file, [f"name=seed{seed}", f"training.seed={seed}", *args.overrides])
            edges = edges_of_checkpoint(Path(train_run(config).checkpoint))
            table = evaluate(edges, reference, expression_of(open_store(store)), all_pairs=False, seed=0).table
            row = table.set_index(["method", "lineage"]).loc[("network", "DAZZLE")]
            scores.append((row["EPR"], row["AUPRC ratio"]))
            cpu = time.process_time() - started
            print(
                f"{args.preset} seed {seed}: EPR {scores[-1][0]:.3f}, AUPRC ratio {scores[-1][1]:.3f}, {cpu:.0f} CPU-s"
            )

    print(table[table["method"] != "network"].to_string(index=False))
    early, area = np.array(scores).T
    spread = early.std(ddof=1) if len(early) > 1 else float("nan")
    print(f"EPR (DAZZLE definition, STRING): mean {early.mean():.3f}, sd {spread:.3f}")
    print(json.dumps({"figures": {"epr_mean": float(early.mean()), "auprc_ratio_mean": float(area.mean())}}))


if __name__ == "__main__":
    main()
