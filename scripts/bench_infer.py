"""What it costs to find the strongest edges of a whole genome, and how that grows with the number of genes.

python scripts/bench_infer.py [--genes 4096 8192 16384] [-k 1000] [--scores]

The network is a CaTran whose embeddings are drawn at random with a standard deviation of 0.3. `grndist infer` is a
process of its own: wall and CPU seconds and peak memory are the operating system's for that process, imports included.
"""

import argparse
import json
import tempfile
from pathlib import Path

from bench_chain import cost
from rich.console import Console
from rich.table import Table

from grndist.models.catran import CaTran, CaTranConfig
from grndist.optim import OptimizerConfig, Optimizers
from grndist.training import checkpoint
from grndist.training.loop import State


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="+", default=[4096, 8192, 16_384])
    parser.add_argument("-k", type=int, default=1000, help="edges")
    parser.add_argument("--scores", action="store_true", help="write every score too")
    args = parser.parse_args()

    table = Table(title=f"the {args.k:,} strongest edges{' and every score' if args.scores else ''}")
    for name in ("genes", "s wall", "s CPU", "peak MiB"):
        table.add_column(name, justify="right")
    figures = {}
    for genes in args.genes:
        wall, cpu, mebibytes = inferred(genes, args.k, args.scores)
        table.add_row(f"{genes:,}", f"{wall:.1f}", f"{cpu:.1f}", f"{mebibytes:.0f}")
        figures |= {f"infer_seconds_{genes // 1024}k": round(wall, 2)}
        figures |= {f"infer_peak_mib_{genes // 1024}k": round(mebibytes)}
    Console(width=120).print(table)
    print(json.dumps({"figures": figures}))


def inferred(genes: int, k: int, scores: bool) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, peak MiB."""
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder, "run"), genes)
        return cost(folder, "infer", "run", "-k", k, *(["--scores", "all.zarr"] if scores else []))


def write_run(folder: Path, genes: int) -> None:
    config = CaTranConfig(embedding_std=0.3, linear_std=0.3)
    model = CaTran(config, genes)
    optimizer = OptimizerConfig(optimizer="adam", learning_rate=1e-3)
    state = State(model, Optimizers(optimizer, model.parameter_groups()))
    names = [f"gene{number:05d}" for number in range(genes)]
    about = checkpoint.Description(0, {"model": config.model_dump(mode="json")}, names, "0" * 64)
    checkpoint.save(folder / "checkpoints", state, about)
    (folder / "config.yaml").touch()


if __name__ == "__main__":
    main()
