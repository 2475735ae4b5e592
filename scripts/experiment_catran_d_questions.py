"""What was left open about CaTran-D: ridges, the gain chosen by held-out loss, rank, unmeasured genes, real data.

python scripts/experiment_catran_d_questions.py ridge | separate | gain | strength | rank | unmeasured | papalexi
    [--seeds 10 11 12]

ridge: gain x ridge on expression (ridge / gain^2). separate: every perturbed gene gets an indicator of its own beside
its expression, each with its own ridge, in place of one input for both. gain: chosen by the squared loss of held-out
cells. strength: of a knock-down, one or observed. rank: of the bilinear form and heads of the attention at 1,000 genes.
unmeasured: half of the perturbed genes are dropped from the panel. papalexi: mean Wasserstein distance of the top edges
in held-out cells. All but the last on simulated screens (realistic, 25 % of the regulators perturbed unless a title
says otherwise, 100 cells each and 3,000 controls): AUPRC ratio by kind of regulator, mean (sd) over seeds, marked
> or < where it differs from the default's (`seed_table`). Simulated cells have one guide each: several are not tried.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from experiment_catran_claims import STRATA, screens, worth_of
from experiment_catran_d import dense, screen_of, simulated, trained
from papalexi_data import TOPS, splits
from seed_table import SeedTable

from grndist.data.facts import Facts
from grndist.data.ingest.build import write_store
from grndist.data.moments import effects, standardised, sums
from grndist.data.moments.passing import InOrder
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import Perturbations, perturbations_of
from grndist.data.store import Store, open_store
from grndist.data.stream.loader import Loader
from grndist.data.view import View, whole
from grndist.effects import edge_log_odds, posterior_log_odds, without_self
from grndist.evaluation.baselines import SCREEN_BASELINES, absolute_correlation, random_scores
from grndist.evaluation.ranking import dazzle_average_precision, ratio_to_chance
from grndist.models.catran_d import CaTranD, CaTranDConfig, from_facts
from grndist.models.catran_d.solve import optimum, precision, residual
from grndist.seeds import stream

LOG1P = ExpressionConfig()
GAINS = (0.05, 0.1, 0.2, 0.4, 1.0)
DEFAULT = CaTranDConfig(form="full")
ACCEPTANCE = "mean difference + 0.5 partial correlation, odds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = {"ridge": ridge, "separate": separate, "gain": gain, "strength": strength, "rank": rank}
    questions |= {"unmeasured": unmeasured, "papalexi": papalexi}
    parser.add_argument("question", choices=list(questions))
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    args = parser.parse_args()
    args.controls, args.cells_each, args.difficulty, args.library = 3000, 100, "realistic", 0.0
    print(json.dumps({"figures": questions[args.question](args)}))


def ridge(args: argparse.Namespace) -> dict[str, float]:
    table = SeedTable("ridge", STRATA, against="gain 0.2, expression ridge 1")
    for _, store, truth, perturbed in screens(args, 300, 0.25):
        worth, view = worth_of(truth, perturbed), whole(store)
        for name in (ACCEPTANCE, "partial correlation"):
            table.add(name, worth(SCREEN_BASELINES[name](screen_of(store))))
        for size in GAINS:
            for expression_ridge in (0.5, 1, 2, 4):
                config = DEFAULT.model_copy(update={"gain": size, "ridge": expression_ridge * size**2})
                table.add(f"gain {size}, expression ridge {expression_ridge}", worth(sizes(fitted(view, config))))
    return table.print()


def separate(args: argparse.Namespace) -> dict[str, float]:
    figures = {}
    for genes, share in ((300, 0.25), (100, 1.0)):
        table = SeedTable(f"separate, {genes} genes, {100 * share:.0f} %", STRATA, "one input, indicator ridge 0.04")
        for _, store, truth, perturbed in screens(args, genes, share):
            worth, view = worth_of(truth, perturbed), whole(store)
            for indicator_ridge in (0.0025, 0.04, 1.0):
                gained = {"gain": indicator_ridge**0.5, "ridge": indicator_ridge}
                config = DEFAULT.model_copy(update=gained)
                table.add(f"one input, indicator ridge {indicator_ridge}", worth(sizes(fitted(view, config))))
                for evidence, scores in of_separate_inputs(view, config).items():
                    table.add(f"two inputs, indicator ridge {indicator_ridge}: {evidence}", worth(scores))
        figures |= table.print()
    return figures


def of_separate_inputs(view: View, config: CaTranDConfig) -> dict[str, np.ndarray]:
    """Scores [genes, genes] by what stands for a perturbed regulator; the ridge on expression is ridge / gain^2."""
    guides = perturbations_of(view, use_unmeasured=False)
    apart = with_indicators(guides)
    found = standardised(sums(view, LOG1P, apart), apart, config.gain)
    inverse = precision(found.second, config.ridge)
    weights = optimum(inverse, found.cross)
    spread = residual(weights, found.cross, found.target_square, config.ridge / config.gain**2)
    partial = (weights / np.sqrt(inverse.diagonal()) / spread[:, None]).T  # [inputs, targets]
    expression = without_self(partial[: view.n_genes], np.arange(view.n_genes))
    indicator = without_self(partial[view.n_genes :], guides.perturbed)
    difference = without_self(effects(sums(view, LOG1P, guides, products=False), guides).z, guides.perturbed)
    both = expression.copy()
    both[guides.perturbed] += indicator
    return {
        "mean difference and expression": edge_log_odds(difference, expression, guides.perturbed, config.weight),
        "indicator and expression": edge_log_odds(-indicator, expression, guides.perturbed, config.weight),
        "mean difference and both": edge_log_odds(difference, both, guides.perturbed, config.weight),
    }


def with_indicators(guides: Perturbations) -> Perturbations:
    """Each perturbed gene of the panel gets an input of its own after the panel; its expression becomes 0, not -1."""
    place = np.searchsorted(guides.perturbed, guides.members)
    indicator = np.where(guides.members >= 0, guides.n_genes + place, -1)
    return replace(
        guides,
        unmeasured=tuple(f"indicator {gene}" for gene in guides.perturbed),
        members=np.concatenate([guides.members, indicator], axis=1),
        strength=np.concatenate([np.zeros_like(guides.strength), guides.strength], axis=1),
    )


def gain(args: argparse.Namespace) -> dict[str, float]:
    figures = {}
    for genes, perturbed in ((300, 0.25), (300, 0.0), (100, 1.0)):
        for rule in ("ridge 0.04", "expression ridge 1"):
            title = f"gain, {genes} genes, {100 * perturbed:.0f} % perturbed, {rule}"
            figures |= gain_of(args, genes, perturbed, rule, title)
    return figures


LOSSES = ("all cells", "perturbed cells", "group means")


def gain_of(args: argparse.Namespace, genes: int, perturbed: float, rule: str, title: str) -> dict[str, float]:
    table = SeedTable(title, ["gain picked", *(f"loss, {name}" for name in LOSSES), *STRATA], against="gain 0.2")
    for seed, store, truth, is_perturbed in screens(args, genes, perturbed):
        worth, view = worth_of(truth, is_perturbed), whole(store)
        order = stream(seed, "held-out").permutation(view.n_cells)
        cut = 3 * view.n_cells // 4
        learn, rest = (replace(view, rows=np.sort(rows)) for rows in (order[:cut], order[cut:]))
        found = {}
        for size in GAINS:
            config = DEFAULT.model_copy(update={"gain": size, "ridge": 0.04 if rule == "ridge 0.04" else size**2})
            found[size] = (held_out_losses(fitted(learn, config), rest), worth(sizes(fitted(view, config))))
            table.add(f"gain {size}", [None, *found[size][0], *found[size][1]])
        for place, name in enumerate(LOSSES):
            if found[GAINS[0]][0][place] is not None:
                best = min(found, key=lambda size: found[size][0][place])
                table.add(f"least loss, {name}", [best, None, None, None, *found[best][1]])
    return table.print(4)


def held_out_losses(model: CaTranD, view: View) -> list[float | None]:
    """Mean squared error of z over cells, over perturbed cells, and of its mean over each perturbed gene's cells."""
    plan = InOrder(view.n_cells, view.n_genes)
    loader = Loader(view, plan, LOG1P, ahead=False)
    inputs = torch.arange(model.n_regulators)
    weights = model.weights(torch.arange(view.n_genes), inputs)
    errors, labels = [], []
    for step in range(plan.steps_per_epoch):
        batch = loader.batch_at(step)
        x, target, own = model.standardised(batch, inputs)
        errors.append((x @ weights.T - target).masked_fill(own, 0).double())
        labels.append(torch.where(own.any(dim=1), batch.labels, -1))
    error, label = torch.cat(errors), torch.cat(labels)
    groups = [error[label == one].mean(dim=0).square().mean() for one in label[label >= 0].unique()]
    if not groups:
        return [float(error.square().mean()), None, None]
    perturbed = error[label >= 0].square().mean()
    return [float(error.square().mean()), float(perturbed), float(torch.stack(groups).mean())]


def strength(args: argparse.Namespace) -> dict[str, float]:
    figures = {}
    for genes, perturbed, difficulty in ((300, 0.25, "realistic"), (100, 1.0, "realistic"), (300, 0.25, "hard")):
        args.difficulty = difficulty
        table = SeedTable(f"strength, {genes} genes, {100 * perturbed:.0f} %, {difficulty}", STRATA, against="one")
        for _, store, truth, is_perturbed in screens(args, genes, perturbed):
            for kind in ("one", "observed"):
                scores = sizes(fitted(whole(store), DEFAULT.model_copy(update={"strength": kind})))
                table.add(kind, worth_of(truth, is_perturbed)(scores))
        figures |= table.print()
    return figures


def rank(args: argparse.Namespace) -> dict[str, float]:
    attention = ["model.embedding=64", "training.learning_rate=0.03", "training.steps=200"]
    forms = {"full": ["model.form=full"]}
    forms |= {f"bilinear, d {d}": ["model.form=bilinear", f"model.embedding={d}"] for d in (40, 100, 250)}
    random = ["model.start=random", "training.learning_rate=0.03"]
    forms |= {f"{name}, random start": [*forms[name], *random] for name in ("bilinear, d 40", "bilinear, d 100")}
    forms |= {f"attention, {h} heads": ["model.form=attention", f"model.heads={h}", *attention] for h in (1, 4, 8)}
    table = SeedTable("rank, 1000 genes", [*STRATA, "s"], against="full")
    for seed, store, truth, perturbed in screens(args, 1000, 0.25):
        worth = worth_of(truth, perturbed)
        table.add("partial correlation", [*worth(SCREEN_BASELINES["partial correlation"](screen_of(store))), None])
        for name, settings in forms.items():
            started = time.monotonic()
            with TemporaryDirectory() as folder:
                run = ["preset=catran_d", "name=run", f"training.seed={seed}", *settings]
                scores = trained(store, Path(folder), run)
            table.add(name, [*worth(scores), time.monotonic() - started])
    return table.print()


def unmeasured(args: argparse.Namespace) -> dict[str, float]:
    table = SeedTable("unmeasured, 300 genes", [*STRATA[:2], "not measured"], against="catran_d, unmeasured true")
    for store, truth, hidden_truth, outside in without_half(args):
        perturbed = np.isin(np.arange(store.n_genes), store.perturbed[store.perturbed >= 0])
        worth = worth_of(truth, perturbed)
        table.add(ACCEPTANCE, [*worth(SCREEN_BASELINES[ACCEPTANCE](screen_of(store)))[:2], None])
        for name, scores in of_unmeasured(whole(store), outside).items():
            table.add(name, [None, None, auprc_ratio(scores, hidden_truth)])
        for kind in (True, False):
            scores = sizes(fitted(whole(store), DEFAULT.model_copy(update={"unmeasured": kind})))
            rows = auprc_ratio(scores[store.n_genes :], hidden_truth) if kind else None
            measured = worth(scores[: store.n_genes])[:2]
            table.add(f"catran_d, unmeasured {str(kind).lower()}", [*measured, rows])
    return table.print()


def without_half(args: argparse.Namespace) -> Iterator[tuple[Store, np.ndarray, np.ndarray, list[str]]]:
    """Screens without the columns of every other perturbed gene.

    Also the true edges among the others, those from the genes that are missing [missing, genes], and their names.
    """
    for _, counts, obs, names, state, truth in simulated(args, 300, 0.25, "weak"):
        missing = np.flatnonzero(np.isin(names, obs["perturbation"].unique()))[::2]
        kept = np.setdiff1d(np.arange(len(names)), missing)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "screen.zarr"
            panel = pd.DataFrame(index=[names[at] for at in kept])
            write_store(path, counts[:, kept], obs, panel, state, {"name": "screen"})
            outside = [names[at] for at in missing]
            yield open_store(path), truth[np.ix_(kept, kept)], truth[np.ix_(missing, kept)], outside


def of_unmeasured(view: View, outside: list[str]) -> dict[str, np.ndarray]:
    """What the difference of means says of perturbed genes outside the panel, [outside, genes]."""
    guides = perturbations_of(view)
    if list(guides.unmeasured) != outside:
        raise ValueError(f"inputs beside the panel are {guides.unmeasured}; the dropped genes are {outside}")
    found = effects(sums(view, LOG1P, guides, products=False), guides)
    rows = found.z[found.inputs >= guides.n_genes]
    return {"mean difference (z)": np.abs(rows), "mean difference (z), odds": posterior_log_odds(rows)}


def auprc_ratio(scores: np.ndarray, truth: np.ndarray) -> float:
    flat = truth.ravel()
    return ratio_to_chance(dazzle_average_precision(scores.ravel(), flat), flat)


def papalexi(args: argparse.Namespace) -> dict[str, float]:
    runs = {"catran_d full": ["preset=catran_d", "model.form=full"]}
    runs |= {"catran_d bilinear": ["preset=catran_d", "model.form=bilinear"]}
    runs |= {"catran_d full, model only": [*runs["catran_d full"], "model.scores=model"]}
    runs |= {"catran_d full, measured only": [*runs["catran_d full"], "model.unmeasured=false"]}
    runs |= {"paper": ["preset=paper"]}
    table = SeedTable("papalexi", [f"W1 top {top}" for top in TOPS], against="catran_d full")
    for seed, store, held_out in splits(args.seeds):
        n_genes, screen = store.n_genes, screen_of(store)
        chance = random_scores(n_genes**2, seed, 0).reshape(n_genes, n_genes)
        table.add("random", held_out.of_strongest(chance))
        spread = np.broadcast_to(screen.deviation, (n_genes, n_genes))
        table.add("deviation of the target alone", held_out.of_strongest(spread))
        table.add("absolute correlation", held_out.of_strongest(absolute_correlation([dense(store)])))
        for name, baseline in SCREEN_BASELINES.items():
            table.add(name, held_out.of_strongest(baseline(screen)))
        for name, settings in runs.items():
            with TemporaryDirectory() as folder:
                scores = trained(store, Path(folder), ["name=run", f"training.seed={seed}", *settings])
            table.add(name, held_out.of_strongest(scores))
    return table.print(3)


def fitted(view: View, config: CaTranDConfig) -> CaTranD:
    """The model of these cells, solved."""
    return from_facts(config, Facts(view, LOG1P, products=True), seed=0).model.eval()


def sizes(model: CaTranD) -> np.ndarray:
    """|weight| of every edge, [regulators, genes]."""
    return model.adjacency(torch.arange(model.n_regulators)).abs().numpy().astype(np.float64)


if __name__ == "__main__":
    main()
