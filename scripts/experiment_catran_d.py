"""CaTran-D beside what it has to beat, on screens whose network is known: AUPRC ratio by kind of regulator.

python scripts/experiment_catran_d.py simulator [--genes 100 300] [--perturbed 1 0.25 0] [--indirect weak strong]
    [--cells-each 100] [--controls 3000] [--difficulty realistic] [--library 0] [--seeds 10 11 12]
    [--forms full bilinear attention] [--presets paper submission] [--set KEY=VALUE ...]
python scripts/experiment_catran_d.py dream4 | sergio [--data-dir ../shared/data] [--forms ...] [--set KEY=VALUE ...]

AUPRC ratio = average precision / share of true edges among all ordered pairs of genes (1 is chance), for pairs whose
regulator was perturbed, was not, and all in one ranking; mean (sd) over seeds. Perturbed genes that regulate nothing
are candidates too. KEY=VALUE are settings of the run, e.g. model.gain=0.1. Settings were chosen on seeds 0-3.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.moments import effects, standardised, sums
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.perturbations import perturbations_of
from grndist.data.simulate import SimulationConfig, simulate
from grndist.data.store import Store, open_store
from grndist.data.view import whole
from grndist.evaluation.baselines import SCREEN_BASELINES, Screen, absolute_correlation, strata_scores
from grndist.genes import NON_TARGETING
from grndist.inference import edges_of_checkpoint
from grndist.runs import load_run, train_run

REGULATORS = {100: 20, 300: 50, 1000: 120, 3000: 300}
Scores = dict[str, np.ndarray]  # method -> [regulators, targets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["simulator", "dream4", "sergio"])
    parser.add_argument("--genes", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--perturbed", type=float, nargs="+", default=[1.0, 0.25, 0.0], help="share of the regulators")
    parser.add_argument("--indirect", nargs="+", default=["weak"], choices=["weak", "strong"])
    parser.add_argument("--cells-each", type=int, default=100)
    parser.add_argument("--controls", type=int, default=3000)
    parser.add_argument("--difficulty", default="realistic")
    parser.add_argument("--library", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--forms", nargs="*", default=["full"])
    parser.add_argument("--presets", nargs="*", default=[])
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    figures: dict[str, float] = {}
    for title, stores in cases(args):
        figures |= compare(title, stores, args)
    print(json.dumps({"figures": figures}))


Case = tuple[str, Iterator[tuple[Path, np.ndarray]]]  # a title, and stores with their true networks


def cases(args: argparse.Namespace) -> Iterator[Case]:
    if args.data == "dream4":
        yield "dream4_size100_1", iter([(0, *dream4(args.data_dir))])
    elif args.data == "sergio":
        for name in ("DS4", "DS6"):
            yield f"sergio_{name}", iter([(0, *sergio(args.data_dir, name))])
    else:
        for genes in args.genes:
            for perturbed in args.perturbed:
                for indirect in args.indirect:
                    yield f"{genes}_{100 * perturbed:.0f}_{indirect}", simulated(args, genes, perturbed, indirect)


def simulated(args: argparse.Namespace, genes: int, perturbed: float, indirect: str) -> Iterator[tuple]:
    regulators = REGULATORS.get(genes, max(genes // 6, 2))
    n_perturbed = round(perturbed * regulators)
    cells = args.controls + args.cells_each * (n_perturbed + round(0.5 * n_perturbed))
    for seed in args.seeds:
        made = simulate(
            SimulationConfig(
                cells=cells, genes=genes, regulators=regulators, perturbed_share=perturbed, decoy_share=0.5,
                control_share=args.controls / cells, difficulty=args.difficulty, indirect_effects=indirect,
                library_effects=args.library, seed=seed,
            )
        )  # fmt: skip
        column = {name: at for at, name in enumerate(made.genes)}
        truth = np.zeros((genes, genes), dtype=bool)
        truth[made.network["regulator"].map(column), made.network["target"].map(column)] = True
        obs = pd.DataFrame({"perturbation": list(made.perturbation)}, index=[f"cell{i}" for i in range(cells)])
        yield seed, sparse.csr_matrix(made.counts), obs, made.genes, "counts", truth


def dream4(data_dir: Path) -> tuple:
    """Wild type, knock-outs and knock-downs; a knock-down is labelled as two guides against one gene."""
    folder = data_dir / "dream4_size100_1"
    table = pd.read_csv(folder / "expression.tsv", sep="\t", index_col=0).T
    rows = table[~table.index.str.startswith("TS")]
    gene = rows.index.str.replace(r"\(.*", "", regex=True)
    halved = rows.index.str.contains(r"\+/-")
    labels = np.where(gene == "wt", NON_TARGETING, np.where(halved, gene + "," + gene, gene))
    edges = pd.read_csv(folder / "edges_net1.csv")
    return (*matrix(rows, labels), "continuous", truth_of(edges.iloc[:, :2], list(table.columns)))


def sergio(data_dir: Path, name: str) -> tuple:
    """Cells without a perturbation, each re-sampled to 60 counts on average."""
    (file,) = sorted((data_dir / "sergio").rglob(f"*{name}*/*.npz")) or sorted(
        (data_dir / "sergio").rglob(f"*{name}*.npz")
    )
    with np.load(file) as stored:
        key = "X" if "X" in stored.files else sorted(stored.files)[0]
        levels = stored[key]
    rng = np.random.default_rng(0)
    counts = rng.poisson(60 * levels / levels.sum(axis=1).mean())
    (network,) = sorted(file.parent.rglob("*gt_GRN*.csv"))[:1]
    names = [f"g{at}" for at in range(counts.shape[1])]
    edges = pd.read_csv(network, header=None).iloc[:, :2].astype(int).map(lambda at: f"g{at}")
    rows = pd.DataFrame(counts, columns=names, index=[f"cell{i}" for i in range(len(counts))])
    return (*matrix(rows, np.full(len(rows), NON_TARGETING)), "counts", truth_of(edges, names))


def matrix(rows: pd.DataFrame, labels: np.ndarray) -> tuple:
    obs = pd.DataFrame({"perturbation": labels}, index=[str(name) for name in rows.index])
    return sparse.csr_matrix(rows.to_numpy()), obs, tuple(rows.columns)


def truth_of(edges: pd.DataFrame, names: list[str]) -> np.ndarray:
    column = {name: at for at, name in enumerate(names)}
    truth = np.zeros((len(names), len(names)), dtype=bool)
    truth[edges.iloc[:, 0].map(column), edges.iloc[:, 1].map(column)] = True
    return truth


def compare(title: str, made: Iterator[tuple], args: argparse.Namespace) -> dict[str, float]:
    rows: dict[str, list[tuple]] = {}
    for seed, counts, obs, genes, state, truth in made:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "screen.zarr"
            write_store(path, counts, obs, pd.DataFrame(index=list(genes)), state, {"name": title})
            store = open_store(path)
            perturbed = np.isin(np.arange(len(genes)), store.perturbed[store.perturbed >= 0])
            for method, (scores, seconds) in methods(store, seed, Path(folder), args).items():
                found = strata_scores(scores, truth, perturbed)
                rows.setdefault(method, []).append((found.perturbed, found.unperturbed, found.all, seconds))
    table = Table(title=f"{title}: {len(next(iter(rows.values())))} seeds", header_style="")
    for heading in ("method", "perturbed", "unperturbed", "all", "s"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    figures = {}
    for method, found in rows.items():
        columns = [[value for value in column if value is not None] for column in zip(*found, strict=True)]
        shown = [f"{np.mean(column):.2f} ({np.std(column):.2f})" if column else "-" for column in columns[:3]]
        table.add_row(method, *shown, f"{np.mean(columns[3]):.1f}")
        for name, column in zip(("perturbed", "unperturbed", "all"), columns, strict=False):
            if column:
                figures[f"{title}_{method}_{name}".replace(" ", "_")] = round(float(np.mean(column)), 3)
    Console(width=110).print(table)
    return figures


def methods(store: Store, seed: int, folder: Path, args: argparse.Namespace) -> dict[str, tuple[np.ndarray, float]]:
    found = {}
    started = time.monotonic()
    screen = screen_of(store)
    found["absolute correlation"] = (absolute_correlation([dense(store)]), time.monotonic() - started)
    for name, baseline in SCREEN_BASELINES.items():
        started = time.monotonic()
        if len(screen.perturbed) or "mean difference" not in name:
            found[name] = (baseline(screen), time.monotonic() - started)
    runs = [(f"catran_d {form}", ["preset=catran_d", f"model.form={form}", *args.overrides]) for form in args.forms]
    runs += [(preset, [f"preset={preset}"]) for preset in args.presets]
    for name, settings in runs:
        started = time.monotonic()
        found[name] = (
            trained(store, folder, [f"name={name.replace(' ', '_')}", f"training.seed={seed}", *settings]),
            0.0,
        )
        found[name] = (found[name][0], time.monotonic() - started)
    return found


def trained(store: Store, folder: Path, overrides: list[str]) -> np.ndarray:
    run_file = folder / "run.yaml"
    run_file.write_text(f"store: {store.url}\nruns: {folder}/runs\ntracking: {{kind: none}}\n")
    table = edges_of_checkpoint(Path(train_run(load_run(run_file, overrides)).checkpoint)).table
    index = store.panel.index
    table = table[table["regulator"].isin(index)]  # others were perturbed but not measured
    scores = np.zeros((len(index), len(index)))
    scores[table["regulator"].map(index), table["target"].map(index)] = table["weight"].abs()
    return scores


def dense(store: Store) -> np.ndarray:
    config = ExpressionConfig()
    blocks = [expression(values, store.totals[rows], store, config) for rows, values in store.blocks()]
    return sparse.csr_matrix(sparse.vstack(blocks)).toarray()


def screen_of(store: Store) -> Screen:
    """What the baselines need, on the log scale."""
    view = whole(store)
    guides = perturbations_of(view, use_unmeasured=False)
    found = sums(view, ExpressionConfig(), guides, products=False)
    standard, effect = standardised(found, guides, 1.0), effects(found, guides)
    return Screen(
        standard.mean, standard.deviation, max(effect.n_controls, 1), effect.inputs, standard.mean + effect.log,
        effect.n, np.cov(dense(store), rowvar=False, bias=True).astype(np.float64),
    )  # fmt: skip


if __name__ == "__main__":
    main()
