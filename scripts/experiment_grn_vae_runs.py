"""One run of `experiment_grn_vae`: the training, and what its network is worth."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from experiment_grn_vae_data import FILES, prepared, split
from jaxtyping import Float
from torch import Tensor

from grndist.data.moments.passing import InOrder
from grndist.data.stream.loader import Loader
from grndist.data.view import View
from grndist.evaluation.evaluate import BEELINE, DAZZLE, Candidates, candidates_of
from grndist.evaluation.references import Reference
from grndist.models.grn_vae.held_out import error_from_others
from grndist.runs import RunConfig, load_run
from grndist.runs.learning import learning, resolved
from grndist.seeds import stream
from grndist.training.loop import train

EDGES_PER_GENE = 5  # of the strongest edges whose agreement over seeds is measured without a reference
HIDDEN = 0.1  # of the non-zero entries of held-out cells
LOOKS = 12  # at the network on its way, of kind "curve"


@dataclass(frozen=True)
class Row:
    """What a row of a table stands for: overrides of a run file, or a mode of the published package."""

    settings: tuple[str, ...]
    kind: Literal["whole", "curve", "held_out", "package"] = "whole"


@dataclass(frozen=True)
class Task:
    """One network: a row, on a data set, with a seed."""

    data: str
    row: Row
    seed: int

    @property
    def key(self) -> str:
        return "|".join([self.data, self.row.kind, *self.row.settings, str(self.seed)])

    @property
    def file(self) -> str:
        """Name of the file of its strongest edges."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:20] + ".npz"


@dataclass(frozen=True)
class Places:
    """Where things are."""

    work: Path
    data_dir: Path
    package: Path  # adjacencies of the published package

    def adjacency(self, task: Task) -> Path:
        """Of a task of kind "package"."""
        return self.package / f"{task.row.settings[0]}_{task.seed}.npy"


@dataclass(frozen=True)
class Outcome:
    """What a task gave: numbers, and its strongest edges by list, strongest first."""

    figures: dict[str, Any]
    edges: dict[str, np.ndarray]


Network = Float[np.ndarray, "regulators targets"]


def configured(settings: tuple[str, ...], places: Places) -> RunConfig:
    """The settings of a run; the cells come as a view, so its store is not named."""
    file = places.work / "run.yaml"
    if not file.exists():
        file.write_text("store: none\ntracking: {kind: none}\n")
    return load_run(file, list(settings))


def outcome(task: Task, places: Places) -> Outcome:
    """Train (or read) the network of a task and measure it."""
    view, references = prepared(task.data, places.work, places.data_dir)
    genes = view.panel.names
    if task.row.kind == "package":
        return measured(published(task, places, genes), genes, references, {})
    config = configured((*task.row.settings, f"training.seed={task.seed}"), places)
    zeros = 1 - float(view.var["nnz"].sum()) / (view.n_cells * view.n_genes)
    figures: dict[str, Any] = {"epochs": config.training.epochs, "zeros": zeros, "curve": []}
    learn, rest = split(view) if task.row.kind == "held_out" else (view, None)
    after_epoch = curve(config, genes, references, figures["curve"]) if task.row.kind == "curve" else no_look
    begun = time.process_time(), time.monotonic()
    model, losses = trained(learn, config, after_epoch)
    figures |= {"cpu_seconds": time.process_time() - begun[0], "seconds": time.monotonic() - begun[1]}
    figures |= {"losses": losses} | ({"held_out": held_out_losses(model, rest, config)} if rest else {})
    return measured(network_of(model), genes, references, figures)


def no_look(epoch: int, model: torch.nn.Module) -> None:
    """Leave a model alone between epochs."""


def trained(
    view: View, config: RunConfig, after_epoch: Callable[[int, Any], None] = no_look
) -> tuple[Any, dict[str, float]]:
    """A model after its last epoch, ready to be asked, and the loss terms of the last step."""
    learns = learning(resolved(config, view), view)
    steps_per_epoch = learns.steps // config.training.epochs
    last: dict[str, float] = {}

    def on_step(state: Any, batch: Any, losses: dict[str, float]) -> None:
        last.update(losses)
        if state.step % steps_per_epoch == 0:
            after_epoch(state.step // steps_per_epoch, state.model)

    train(learns.state, learns.batch_at, learns.steps, on_step)
    return learns.state.model.eval(), last


def curve(
    config: RunConfig, genes: tuple[str, ...], references: dict[str, Reference], points: list[dict[str, float]]
) -> Callable[[int, Any], None]:
    """A look at the network every so many epochs: EPR by reference, and the CPU seconds without the looking."""
    every, begun, aside = max(config.training.epochs // LOOKS, 1), time.process_time(), 0.0

    def look(epoch: int, model: Any) -> None:
        nonlocal aside
        if epoch % every:
            return
        before = time.process_time()
        scores = measured(network_of(model), genes, references, {}).figures["scores"]
        early = {name: found["EPR"] for name, found in scores.items()}
        points.append({"epoch": epoch, "cpu_seconds": before - begun - aside, **early})
        aside += time.process_time() - before

    return look


def network_of(model: Any) -> Network:
    return model.adjacency(torch.arange(model.n_regulators)).cpu().numpy().astype(np.float64)


def published(task: Task, places: Places, genes: tuple[str, ...]) -> Network:
    """The package's adjacency; its rows and columns are in the order of the expression file."""
    folder, _ = FILES[task.data]
    names = pd.read_csv(places.data_dir / folder / "ExpressionData.csv", usecols=[0]).iloc[:, 0]
    order = pd.Index(names).get_indexer(list(genes))
    return np.load(places.adjacency(task)).astype(np.float64)[np.ix_(order, order)]


def measured(
    network: Network, genes: tuple[str, ...], references: dict[str, Reference], figures: dict[str, Any]
) -> Outcome:
    """Scores of both lineages by reference, and the strongest edges: of all pairs, and of the candidates."""
    strength = pd.DataFrame(np.abs(network), index=list(genes), columns=list(genes))
    np.fill_diagonal(strength.values, 0)
    scores, edges = {}, {}
    for name, reference in references.items():
        dazzle, beeline, true = judged(reference, set(genes))
        score, is_true = of_candidates(strength, dazzle), dazzle.place(true, np.ones(len(true), dtype=bool))
        found = DAZZLE.measure(score, is_true)
        other = BEELINE.measure(of_candidates(strength, beeline), beeline.place(true, np.ones(len(true), dtype=bool)))
        scores[name] = {"EPR": found["EPR"], "AUPRC ratio": found["AUPRC ratio"], "BEELINE EPR": other["EPR"]}
        edges[name] = strongest(score, int(is_true.sum()))
    count = max(EDGES_PER_GENE * len(genes), len(next(iter(edges.values()))))
    sizes = {"n_genes": len(genes), "k": len(next(iter(edges.values()))), "mean_weight": float(strength.values.mean())}
    return Outcome(figures | sizes | {"scores": scores}, edges | {"all": strongest(strength.values.ravel(), count)})


def judged(reference: Reference, panel: set[str]) -> tuple[Candidates, Candidates, pd.DataFrame]:
    """Candidates of DAZZLE's lineage (TFs x genes), of BEELINE's (all pairs of its genes), and the true edges."""
    given = reference.table
    true = given[given["regulator"].isin(panel) & given["target"].isin(panel)]
    everyone = set(given["regulator"]) | set(given["target"])
    names = set(true["regulator"]) | set(true["target"])
    dazzle = candidates_of(panel & set(given["regulator"]), panel & everyone, "TF x genes")
    return dazzle, candidates_of(names, names, "all pairs"), true


def of_candidates(strength: pd.DataFrame, candidates: Candidates) -> Float[np.ndarray, " edges"]:
    return strength.loc[candidates.regulators, candidates.genes].to_numpy()[candidates.allowed]


def strongest(score: Float[np.ndarray, " edges"], count: int) -> np.ndarray:
    """Places of the largest scores, largest first."""
    return np.argsort(-score, kind="stable")[:count].astype(np.int32)


@dataclass(frozen=True)
class HeldOutLosses:
    """Mean squared error of real non-zero entries of held-out cells, as z-scores."""

    seen: float  # of all of them, nothing hidden
    hidden: float  # of those that are set to zero in the input
    from_others: float  # of all of them, each guessed from the other genes of its cell and the network alone


@torch.no_grad()
def held_out_losses(model: Any, view: View, config: RunConfig) -> dict[str, float]:
    plan = InOrder(view.n_cells, view.n_genes)
    loader = Loader(view, plan, config.expression, ahead=False)
    steps = range(plan.steps_per_epoch)
    expression = torch.cat([loader.batch_at(step).expression.clone() for step in steps])
    real, target = expression != 0, (expression - model.mean) / model.std
    hidden = real & torch.from_numpy(stream(0, "hidden").random(tuple(expression.shape)) < HIDDEN)
    noise = torch.from_numpy(stream(0, "latent").standard_normal(tuple(expression.shape), dtype=np.float32))
    seen = reconstructed(model, expression, noise)
    blind = reconstructed(model, expression.masked_fill(hidden, 0), noise)
    losses = [float((target - guess)[where].square().mean()) for guess, where in ((seen, real), (blind, hidden))]
    return asdict(HeldOutLosses(*losses, error_from_others(model, map(loader.batch_at, steps))))


def reconstructed(
    model: Any, expression: Float[Tensor, "cells genes"], noise: Float[Tensor, "cells genes"]
) -> Float[Tensor, "cells genes"]:
    """What the model makes of cells: decoder(z (I - A)^-1) with z = mean + deviation * noise."""
    mean, deviation = model.posterior(expression)
    kept = torch.eye(model.n_regulators) - model.adjacency(torch.arange(model.n_regulators))
    h = torch.linalg.solve(kept, mean + deviation * noise, left=False)
    return model.decoder(h[:, :, None])[:, :, 0]
