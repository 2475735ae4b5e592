"""The experiments of GRN-VAE's paper and of DAZZLE, repeated: EPR and the agreement of networks over seeds.

python scripts/experiment_grn_vae.py QUESTION [--work runs/grn_vae] [--jobs 2] [--seeds N] [--data mDC hESC ...]
    [--presets ...] [--package DIR] [--epochs-scale 1] [--set KEY=VALUE ...]
python scripts/experiment_grn_vae.py tables [QUESTION ...]

figures123: {all, nonzero} entries x delay {0, 10, 30, 50} without augmentation. figure4: augmentation {0, 5, 10, 30,
50 %} at delay 30, non-zero entries. figure1b: EPR against the final sparse loss of 50 DeepSEM runs, and a picture.
presets: one beside the other, and the published package's adjacencies, DIR/{dazzle,grn_vae}_{seed}.npy, where given.
subsets: 25, 50, 100 % of the genes a step, with equal epochs, and with so many that every pair of genes is seen as
often. convergence: EPR by epoch. augmentation: the rate chosen without a reference (agreement of the strongest edges
over seeds, losses of held-out cells) beside the rate that the reference would choose; networks of 80 % of the cells.

Every network is a line of WORK/results.jsonl and a file of its strongest edges in WORK/edges; what is there is not made
again, by any question, so a question that was stopped goes on. `tables` prints what is there. KEY=VALUE are settings of
all runs, e.g. model.alpha=10. EPR and AUPRC ratio: DAZZLE's lineage; EPR of BEELINE: all pairs of reference genes. With
--epochs-scale, epochs are multiplied and delays are not.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from experiment_grn_vae_data import FILES, THINNED, prepared
from experiment_grn_vae_runs import Outcome, Places, Row, Task, configured, outcome
from experiment_grn_vae_tables import Results, Rows, tables
from threadpoolctl import threadpool_limits

from grndist.errors import UserError
from grndist.runs import RunConfig

BOTH = ("mDC", "hESC")
SHARES = (0.25, 0.5, 1.0)  # of the genes, in a step
RATES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Question:
    """The networks that answer it, and what it takes where nothing else is said."""

    rows: Callable[[tuple[str, ...], Places], Rows]  # of presets
    seeds: int
    data: tuple[str, ...]
    presets: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=[*QUESTIONS, "tables"])
    parser.add_argument("of", nargs="*", help="with tables: which; all where none is named")
    parser.add_argument("--work", type=Path, default=Path("runs/grn_vae"))
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--package", type=Path, help="default: WORK/package")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, help="how many, from 0")
    parser.add_argument("--data", nargs="+", choices=[*FILES, *THINNED])
    parser.add_argument("--presets", nargs="+")
    parser.add_argument("--epochs-scale", type=float, default=1.0)
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args()
    places = Places(args.work.absolute(), args.data_dir.absolute(), (args.package or args.work / "package").absolute())
    quiet()
    (places.work / "edges").mkdir(parents=True, exist_ok=True)
    try:
        chosen = (args.of or list(QUESTIONS)) if args.question == "tables" else [args.question]
        figures = {}
        for name in chosen:
            if args.question != "tables":
                answer(tasks(name, args, places), places, args.jobs)
            data = args.data or QUESTIONS[name].data
            figures |= tables(name, rows_of(name, args, places), data, Results.read(places.work))
        print(json.dumps({"figures": figures}))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def rows_of(name: str, args: argparse.Namespace, places: Places) -> Rows:
    """The rows of a question with what the command line changes."""
    question = QUESTIONS[name]
    rows = question.rows(tuple(args.presets or question.presets), places)
    return {name: changed(row, args, places) for name, row in rows.items()}


def changed(row: Row, args: argparse.Namespace, places: Places) -> Row:
    if row.kind == "package":
        return row
    settings = (*row.settings, *args.overrides)
    epochs = configured(settings, places).training.epochs  # a mistake in the settings shows here, before any training
    if args.epochs_scale != 1:
        settings = (*settings, f"training.epochs={max(round(args.epochs_scale * epochs), 1)}")
    return Row(settings, row.kind)


def tasks(name: str, args: argparse.Namespace, places: Places) -> list[Task]:
    """Everything a question asks for, seed by seed, so that a first table can be had early."""
    question, rows = QUESTIONS[name], rows_of(name, args, places)
    found = [
        Task(data, row, seed)
        for seed in range(args.seeds or question.seeds)
        for data in args.data or question.data
        for row in rows.values()
    ]
    return [task for task in found if task.row.kind != "package" or places.adjacency(task).exists()]


def answer(wanted: list[Task], places: Places, jobs: int) -> None:
    """Do what is not there yet, and keep every outcome as it comes."""
    results = Results.read(places.work)
    missing = [task for task in wanted if task.key not in results.lines]
    print(f"{len(wanted)} networks, {len(missing)} of them to be made", flush=True)
    for data in dict.fromkeys(task.data for task in missing):
        prepared(data, places.work, places.data_dir)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread)
    try:
        futures = {pool.submit(partial(outcome, task, places)): task for task in missing}
        for number, future in enumerate(as_completed(futures), 1):
            task = futures[future]
            try:
                found = future.result()
            except UserError as error:  # a run whose loss is not finite is no reason to stop the others
                print(f"[{number}/{len(missing)}] {task.key}: {error}", flush=True)
                continue
            keep(task, found, places)
            print(f"[{number}/{len(missing)}] {task.key}: {in_words(found)}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def one_thread() -> None:
    """Of a new process."""
    quiet()
    torch.set_num_threads(1)
    threadpool_limits(1)


def quiet() -> None:
    """Say nothing of the references' self-edges, which would be said again with every network."""
    logging.getLogger("grndist").setLevel(logging.ERROR)


def keep(task: Task, found: Outcome, places: Places) -> None:
    """Write the edges, then the line that says that they are there."""
    np.savez(places.work / "edges" / task.file, **found.edges)
    line = {"data": task.data, "kind": task.row.kind, "settings": task.row.settings, "seed": task.seed}
    with (places.work / "results.jsonl").open("a") as file:
        file.write(json.dumps(line | {"key": task.key, "edges": task.file} | found.figures) + "\n")


def in_words(found: Outcome) -> str:
    reference, scores = next(iter(found.figures["scores"].items()))
    return f"{reference} EPR {scores['EPR']:.3f}, {found.figures.get('cpu_seconds', 0):.0f} CPU-s"


def grn_vae(entries: str, delay: int, augmentation: float) -> Row:
    model = {"loss_entries": entries, "sparse_delay": delay, "augmentation": augmentation}
    return Row(("preset=grn_vae", *(f"model.{name}={value}" for name, value in model.items())))


def figures123(presets: tuple[str, ...], places: Places) -> Rows:
    return {f"{e}, delay {d}": grn_vae(e, d, 0) for e in ("all", "nonzero") for d in (0, 10, 30, 50)}


def figure4(presets: tuple[str, ...], places: Places) -> Rows:
    return {f"augmentation {100 * p:.0f} %": grn_vae("nonzero", 30, p) for p in (0, 0.05, 0.1, 0.3, 0.5)}


def whole_presets(presets: tuple[str, ...], places: Places) -> Rows:
    return {preset: Row((f"preset={preset}",)) for preset in presets}


def presets_and_package(presets: tuple[str, ...], places: Places) -> Rows:
    package = {f"grn-dazzle, {mode}": Row((mode,), "package") for mode in ("dazzle", "grn_vae")}
    return whole_presets(presets, places) | package


def convergence(presets: tuple[str, ...], places: Places) -> Rows:
    return {preset: Row((f"preset={preset}",), "curve") for preset in presets}


def subsets(presets: tuple[str, ...], places: Places) -> Rows:
    """Pairs of genes are seen together in share^2 of the steps."""
    n_genes = prepared("mDC", places.work, places.data_dir)[0].n_genes
    rows = {}
    for preset in presets:
        whole = configured((f"preset={preset}",), places)
        rows[f"{preset}, 100 %"] = Row((f"preset={preset}",))
        for share in SHARES[:-1]:
            settings = (f"preset={preset}", f"training.genes_per_step={round(share * n_genes)}")
            rows[f"{preset}, {100 * share:.0f} %, equal epochs"] = Row(settings)
            rows[f"{preset}, {100 * share:.0f} %, pairs as often"] = Row((*settings, *longer(whole, round(share**-2))))
    return rows


def longer(config: RunConfig, times: int) -> tuple[str, ...]:
    """Settings of a run of so many times the epochs, everything that is counted in epochs or steps as much later."""
    halved = [times * step for step in config.training.halve_at_steps]
    return (
        f"training.epochs={times * config.training.epochs}",
        f"training.halve_at_steps={halved}",
        f"model.sparse_delay={times * config.model.sparse_delay}",
    )


def augmentation(presets: tuple[str, ...], places: Places) -> Rows:
    rows = {}
    for preset in presets:
        for rate in RATES:
            without = ("model.classifier_weight=0",) if rate == 0 else ()  # there is nothing to classify
            settings = (f"preset={preset}", f"model.augmentation={rate}", *without)
            rows[f"{preset}, {100 * rate:.0f} %"] = Row(settings, "held_out")
    return rows


QUESTIONS = {
    "figures123": Question(figures123, 10, BOTH),
    "figure4": Question(figure4, 10, BOTH),
    "figure1b": Question(whole_presets, 50, BOTH, ("deepsem",)),
    "presets": Question(presets_and_package, 10, ("mDC",), ("deepsem", "grn_vae", "grn_vae_package", "dazzle")),
    "subsets": Question(subsets, 10, ("mDC",), ("dazzle",)),
    "convergence": Question(convergence, 3, ("mDC",), ("dazzle", "grn_vae_package")),
    "augmentation": Question(augmentation, 3, ("mDC", "hESC", "MEF", "mESC", *THINNED), ("dazzle",)),
}


if __name__ == "__main__":
    main()
