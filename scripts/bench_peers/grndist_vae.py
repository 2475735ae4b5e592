"""grndist's GRN-VAE or DAZZLE from a store, as a run trains it: loader, model, optimisers, loop.

python grndist_vae.py STORE THREADS steps ROUNDS PRESET [KEY=VALUE ...]
python grndist_vae.py STORE THREADS run ADJACENCIES.npy PRESET [KEY=VALUE ...]

The counterpart of `grn_dazzle.py`, with the same rounds.
"""

import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from turns import BATCHES, EPOCHS, Turns

from grndist.data.store import open_store
from grndist.data.stream.batch import Batch
from grndist.data.view import View, whole
from grndist.models.grn_vae import GRNVAE
from grndist.optim import Optimizers
from grndist.runs import load_run
from grndist.runs.config import RunConfig
from grndist.runs.learning import learning, resolved
from grndist.training.loop import State, train

EVERY = 10  # epochs between two adjacencies that are kept


def steps(config: RunConfig, view: View, turns: Turns, rounds: int) -> None:
    learns = learning(config, view)
    per_epoch = learns.steps // config.training.epochs

    def batch_at(step: int) -> Batch:
        if step % (EPOCHS * BATCHES) == 0:
            turns.begin()
        epoch, batch = divmod(step, BATCHES)
        return learns.batch_at(epoch * per_epoch + batch)

    train(learns.state, batch_at, rounds * EPOCHS * BATCHES, lambda *_: None)
    turns.end()


def run(config: RunConfig, view: View, turns: Turns, out: str) -> None:
    turns.begin()
    learns = learning(config, view)
    genes, kept = torch.arange(view.n_genes), []
    per_epoch = learns.steps // config.training.epochs
    ends = [per_epoch * (epoch + 1) for epoch in range(0, config.training.epochs, EVERY)]
    for _, end in pairwise(sorted({0, *ends, learns.steps})):
        train(learns.state, learns.batch_at, end, lambda *_: None)
        kept.append(learns.state.model.adjacency(genes).numpy())
    turns.end()
    np.save(out, np.stack(kept))


def warm_up(config: RunConfig) -> None:
    """A few steps on next to nothing: what libraries take at their first use is no part of a step."""
    x = torch.from_numpy(np.random.default_rng(0).random((8, 16), dtype=np.float32))
    nothing = torch.zeros(8, dtype=torch.int64)
    model = GRNVAE(config.model, 16)
    state = State(model, Optimizers(config.training, model.parameter_groups()))
    train(
        state,
        lambda step: Batch(x, torch.arange(16), nothing, nothing, ((0, 8),), seed=0, epoch=step, step=0),
        EPOCHS,
        lambda *_: None,
    )


def settings(store: str, preset: str, overrides: tuple[str, ...]) -> RunConfig:
    """Those of the preset, not for one store or run folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        file.write_text(f"preset: {preset}\nstore: {store}\nname: benchmark\n")
        return load_run(file, list(overrides))


def main(path: str, threads: str, what: str, detail: str, preset: str, *overrides: str) -> None:
    torch.set_num_threads(int(threads))
    turns, view = Turns(), whole(open_store(path))
    config = resolved(settings(path, preset, overrides), view)
    warm_up(config)
    turns.hold()
    if what == "steps":
        steps(config, view, turns, int(detail))
    else:
        run(config, view, turns, detail)


if __name__ == "__main__":
    main(*sys.argv[1:])
