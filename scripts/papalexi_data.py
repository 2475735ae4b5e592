"""The Papalexi screen in two halves of its cells: one to learn from, one to see whether the edges found are there.

An edge is seen in the held-out half as the Wasserstein distance W1 between a gene's log1p expression in the cells in
which the regulator was knocked out and in control cells. W1 measures what a knock-out does in the end: it cannot tell
direct edges from indirect ones, and it rewards genes whose expression varies much.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from experiment_catran_d import dense
from scipy.stats import wasserstein_distance

from grndist.data.ingest import IngestConfig, ingest
from grndist.data.ingest.build import write_store
from grndist.data.store import Store, open_store
from grndist.genes import CONTROL
from grndist.seeds import stream

DATA = Path(__file__).parents[2] / "shared" / "data"
TOPS = (30, 100, 300)


@dataclass(frozen=True)
class HeldOut:
    """W1 of every gene between the cells of each perturbed measured gene and the control cells."""

    regulators: np.ndarray  # columns
    distance: np.ndarray  # [regulators, genes]; NaN for a gene and itself

    def of_strongest(self, scores: np.ndarray, tops: tuple[int, ...] = TOPS) -> list[float]:
        """Mean W1 of the edges with the largest scores [genes, genes], among those of these regulators."""
        candidates = ~np.isnan(self.distance)
        order = np.argsort(-scores[self.regulators][candidates], kind="stable")
        ranked = self.distance[candidates][order]
        return [float(ranked[:top].mean()) for top in tops]


def held_out_wasserstein(values: np.ndarray, perturbed: np.ndarray) -> HeldOut:
    """The distances of the held-out cells.

    Args:
        values: log1p expression [cells, genes].
        perturbed: column of the gene perturbed in each cell; negative for controls and for genes not measured.
    """
    regulators = np.unique(perturbed[perturbed >= 0])
    control = values[perturbed == CONTROL]
    distance = np.full((len(regulators), values.shape[1]), np.nan)
    for row, regulator in enumerate(regulators):
        cells = values[perturbed == regulator]
        for target in range(values.shape[1]):
            if target != regulator:
                distance[row, target] = wasserstein_distance(cells[:, target], control[:, target])
    return HeldOut(regulators, distance)


def splits(seeds: list[int], data_dir: Path = DATA) -> Iterator[tuple[int, Store, HeldOut]]:
    """For each seed another random half of the cells as a store to learn from, and the distances in the other half."""
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "papalexi.zarr"
        source = data_dir / "papalexi_eccite_subset" / "papalexi_lowmoi.h5ad"
        ingest(source, whole, IngestConfig(where="grna_max_frac > 0.9"))
        store = open_store(whole)
        values, counts = dense(store), store.read_rows(0, store.n_cells)
        for seed in seeds:
            order = stream(seed, "papalexi-halves").permutation(store.n_cells)
            learn, held_out = np.sort(order[::2]), np.sort(order[1::2])
            path = Path(folder) / f"half{seed}.zarr"
            genes = pd.DataFrame(index=list(store.panel.names))
            obs = pd.DataFrame({"perturbation": store.obs["perturbation"].astype(str)}).iloc[learn]
            write_store(path, counts[learn], obs, genes, store.state, {"name": path.stem})
            yield seed, open_store(path), held_out_wasserstein(values[held_out], store.perturbed[held_out])
