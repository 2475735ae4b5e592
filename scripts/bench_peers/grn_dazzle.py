"""The published GRN-VAE: the loop of grn-dazzle with two optimisers, K1:K2 = 1:2, on an array of cells x genes.

python grn_dazzle.py EXPRESSION.npy THREADS steps ROUNDS
python grn_dazzle.py EXPRESSION.npy THREADS run ADJACENCIES.npy

steps: rounds of three epochs (one of the networks, two of the adjacency) cut to two batches each.
run: one round, the whole of `runDAZZLE`; writes the adjacency after every tenth epoch from the first, and at the end.

It is the package's own loop. Only its DataLoader is replaced, by one that stops between epochs and cuts them short.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from dazzle import runDAZZLE, runner
from dazzle_mdc import settings
from torch.utils.data import DataLoader
from turns import BATCHES, EPOCHS, Turns

NEVER = 10**6


def steps(expression: np.ndarray, turns: Turns, rounds: int) -> None:
    epochs = count()

    class Cut(DataLoader):
        def __iter__(self) -> Iterator[Any]:
            if next(epochs) % EPOCHS == 0:
                turns.begin()
            return islice(super().__iter__(), BATCHES)

    runner.DataLoader = Cut
    length = {"n_epochs": rounds * EPOCHS, "eval_on_n_steps": NEVER, "delayed_steps_on_sparse": 0}
    runDAZZLE(expression, settings("grn_vae") | length, progress_bar=False)
    turns.end()


def run(expression: np.ndarray, turns: Turns, out: str) -> None:
    turns.begin()
    model, adjacencies = runDAZZLE(expression, settings("grn_vae"), progress_bar=False)
    turns.end()
    np.save(out, np.stack([*adjacencies, model.get_adj()]))


def main(path: str, threads: str, what: str, detail: str) -> None:
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    turns, expression = Turns(), np.load(path)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # its logs go where it runs
        few = settings("grn_vae") | {"n_epochs": EPOCHS}  # what libraries take at their first use is no part of a step
        runDAZZLE(np.random.default_rng(0).random((8, 16), dtype=np.float32), few, progress_bar=False)
        turns.hold()
        if what == "steps":
            steps(expression, turns, int(detail))
        else:
            run(expression, turns, detail)
        os.chdir("/")


if __name__ == "__main__":
    main(*sys.argv[1:])
