"""The last page of scripts/quickstart: one table of scores, where everything lies, what to try next."""

import json
import sys
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

MODELS = ("catran_d", "catran", "grn_vae")
PAPER_EPOCHS = {"catran": 25, "grn_vae": 120}


def main(out: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    scores = {model: json.loads((out / f"{model}.scores.json").read_text()) for model in MODELS}
    table = Table(title="Recovery of the simulated network (1 is chance)")
    table.add_column("method", no_wrap=True)
    for column in ("EPR (DAZZLE)", "AUPRC ratio (DAZZLE)", "EPR (BEELINE)", "AUPRC ratio (BEELINE)"):
        table.add_column(column, justify="right")
    for model, result in scores.items():
        table.add_row(model, *cells(result, "network"))
    for baseline in ("random", "absolute correlation"):
        table.add_row(baseline, *cells(scores["catran"], baseline))
    console.print()
    console.print(table)
    for model, epochs in PAPER_EPOCHS.items():
        trained = yaml.safe_load((out / "runs" / model / "config.yaml").read_text())["training"]["epochs"]
        if trained != epochs:
            console.print(f"{model}: {trained} epochs here, {epochs} in its paper.")
    console.print("CaTran as published is near chance; catran_d is its directed variant (docs/experiments.md).")
    console.print(f"""
where everything lies
  {out}/sim.h5ad, sim.network.tsv           the simulated cells and their true network
  {out}/sim.zarr                            the store, also an AnnData
  {out}/runs/MODEL/                         settings, checkpoints, metrics, edges.parquet
  {out}/MODEL.scores.json                   every score in full
  {out}/runs/mlflow.db                      all of it in MLflow

four commands to try next (after: source .venv/bin/activate)
  mlflow ui --backend-store-uri sqlite:///{(out / "runs" / "mlflow.db").resolve()}
  grndist train configs/quickstart_catran_d.yaml name=low_rank model.form=bilinear
  grndist sweep configs/sweep_catran_d.yaml budget.trials=12
  grndist ingest YOUR.h5ad your.zarr""")


def cells(result: dict, method: str) -> list[str]:
    rows = {row["lineage"]: row for row in result["scores"] if row["method"] == method}
    return [f"{rows[lineage][measure]:.2f}" for lineage in ("DAZZLE", "BEELINE") for measure in ("EPR", "AUPRC ratio")]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
