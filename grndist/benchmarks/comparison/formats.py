"""Published simulations in the formats of their own, as stores: GeneNetWeaver's (DREAM4) and SERGIO's."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.errors import UserError
from grndist.genes import NON_TARGETING, some
from grndist.seeds import stream


def store_of_gene_net_weaver(table: Path, store: Path) -> None:
    """Wild type (the control), knock-outs G(-/-) and knock-downs G(+/-), both labelled by their gene G.

    Args:
        table: tab-separated, genes in rows, conditions in columns; other conditions (TS_...: time series, whose
            perturbed genes are not known) are left out.
        store: to write.

    Raises:
        UserError: it is no such table, or has no wild type.
    """
    try:
        found = pd.read_csv(table, sep="\t", index_col=0).T
        values = found.to_numpy(np.float64)
    except ValueError as error:
        raise UserError(f"{table}: a tab-separated table of numbers was expected ({error})") from None
    names = pd.Series(found.index.astype(str))
    labels = names.str.extract(r"^(.+)\([-+]/-\)$")[0].where(names != "wt", NON_TARGETING)
    keep = labels.notna().to_numpy()
    if not (names == "wt").any():
        raise UserError(f"{table}: no column is called wt, the wild type; the columns are {some(list(names))}")
    obs = pd.DataFrame({"perturbation": labels[keep].to_numpy()}, index=names[keep].to_list())
    genes = pd.DataFrame(index=[str(gene) for gene in found.columns])
    write_store(store, sparse.csr_matrix(values[keep]), obs, genes, "continuous", {"name": table.name}, overwrite=True)


def store_of_sergio(levels: Path, store: Path, counts_per_cell: float, seed: int) -> None:
    """Control cells, whose counts are Poisson with the noise-free levels as means, scaled to so many a cell.

    Args:
        levels: npz with X [cells, genes] and gene_ids, which become the genes' names.
        store: to write.
        counts_per_cell: mean over all cells of a cell's counts in all genes.
        seed: of the draw.

    Raises:
        UserError: it is no such file.
    """
    try:
        with np.load(levels) as stored:
            mean, names = stored["X"], [str(name) for name in stored["gene_ids"]]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{levels}: an npz file with the arrays X and gene_ids was expected ({error})") from None
    scaled = counts_per_cell * mean / mean.sum(axis=1).mean()
    counts = sparse.csr_matrix(stream(seed, "sergio-counts").poisson(scaled))
    obs = pd.DataFrame({"perturbation": NON_TARGETING}, index=[f"cell{at}" for at in range(len(mean))])
    write_store(store, counts, obs, pd.DataFrame(index=names), "counts", {"name": levels.name}, overwrite=True)
