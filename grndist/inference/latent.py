"""The latent space of a trained GRN-VAE: mean, deviation and samples of z in each cell, and where UMAP puts them.

Two layouts. One is of the expression; the other of all samples of z together, so that a cell is in it once a sample,
and a cell stands at the mean of its samples' positions. Means of z are not laid out beside samples: without noise they
are most of a sample's neighbours (four of five on SCODE's hESC), and would place the samples in place of each other.
After Figure 6 of Zhu and Slonim (bioRxiv 2023.01.26.525733).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from grndist.config import Config, validate
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.selection import SelectionConfig, select
from grndist.data.selection.split import parted
from grndist.data.store import StoreError, open_store
from grndist.data.view import View
from grndist.files import written_aside
from grndist.inference.network import InferenceError, load_model, opened_run
from grndist.machine import available_memory
from grndist.models.grn_vae import GRNVAE
from grndist.plots import Latent, colour_column, layout, principal_axes
from grndist.progress import track
from grndist.seeds import stream
from grndist.training import checkpoint

H5AD = ".h5ad"
CELLS = 10_000  # if nothing is said
ENTRIES = 2**19  # of cells x genes that are encoded at once; each is 128 numbers wide on the way
COPIES = 5  # cells x genes held beside the samples: expression, mean, deviation, and two while axes are found
GIB = 2**30


class LatentConfig(Config):
    """What of the latent space is wanted."""

    samples: int = Field(3, gt=0, description="of z in each cell")
    cells: int | None = Field(None, gt=0, description="drawn at random; null: all, but at most 10,000")
    colour: str | None = Field(None, description="column of obs; null: the perturbation, if there are several")
    seed: int = Field(0, ge=0, description="of the cells drawn, the samples and the layouts")


@dataclass(frozen=True)
class Trained:
    """A trained model and the cells that it was trained on."""

    model: GRNVAE
    view: View
    expression: ExpressionConfig
    origin: dict[str, Any]


def latent_of_run(where: str | Path, config: LatentConfig | None = None, store: str | None = None) -> anndata.AnnData:
    """The latent space of a run at its newest checkpoint, for the cells that it was trained on.

    X is the expression before any z-score, sparse unless its zeros are moved. `obsm` has `z_mean`, `z_std` and
    `z_sample_1`, ..., z = mean + std * noise [cells, genes]; `uns["latent"]` says where it is from.

    Args:
        where: a run directory, at a path or URL.
        config: what is wanted; None: the defaults.
        store: where the run's store is now; None: where it was.

    Raises:
        InferenceError: no GRN-VAE, another store, more cells than the run saw or memory holds, or z is not finite.
        UserError: not a run directory, no checkpoint yet, no such column, or the store or a list of genes is missing.
    """
    config = config or LatentConfig()
    trained = _trained(where, store)
    view = _drawn(trained.view, config)
    colour_column(view.obs, config.colour)
    _check_memory(view, config)
    data = _encoded(trained, view, config)
    asked = {"samples": config.samples, "seed": config.seed, "cells_of_run": trained.view.n_cells}
    data.uns["latent"] = trained.origin | asked
    return data


def add_layouts(data: anndata.AnnData) -> None:
    """Add UMAPs to a latent space: `X_umap` of the expression, `X_umap_latent` and `X_umap_sample_1`, ... of z.

    Those of z are parts of one UMAP of all samples, and `X_umap_latent` is the mean of a cell's samples. A UMAP is of
    the 50 principal components: of the expression, or of the means of z, on which the samples are projected; of 50
    genes or fewer it is of the genes.

    Raises:
        PlotError: there are fewer than 16 cells, or no gene varies.
    """
    about = data.uns["latent"]
    seed, numbers = about["seed"], _numbers(about["samples"])
    with _torch_threads_kept():
        data.obsm["X_umap"] = layout(np.asarray(data.X @ principal_axes(data.X, seed)), seed)
        axes = principal_axes(data.obsm["z_mean"], seed)
        projected = np.concatenate([data.obsm[f"z_sample_{number}"] @ axes for number in numbers])
        found = layout(projected, seed).reshape(len(numbers), data.n_obs, 2)
    data.obsm.update({f"X_umap_sample_{number}": of_one for number, of_one in zip(numbers, found, strict=True)})
    data.obsm["X_umap_latent"] = found.mean(axis=0)


def refuse_ending(where: str) -> None:
    """Raise unless the latent space can be written under this name; call it before long work.

    Raises:
        InferenceError: it does not end in .h5ad.
    """
    if not where.endswith(H5AD):
        raise InferenceError(f"{where}: the latent space is an AnnData; give a name that ends in {H5AD}")


def write_latent(data: anndata.AnnData, path: Path, overwrite: bool = False) -> None:
    """Write an AnnData.

    Raises:
        UserError: `path` exists and `overwrite` is false, or its folder does not.
    """
    with written_aside(path, overwrite) as aside:
        data.write_h5ad(aside)


def places(data: anndata.AnnData) -> Latent:
    """The layouts of a latent space."""
    samples = (data.obsm[f"X_umap_sample_{number}"] for number in _numbers(data.uns["latent"]["samples"]))
    return Latent(data.obsm["X_umap"], data.obsm["X_umap_latent"], tuple(samples))


def described(data: anndata.AnnData) -> str:
    """Its size, and how far z varies within and between cells, for people."""
    total = data.uns["latent"]["cells_of_run"]
    drawn = f"{data.n_obs:,} of {total:,} cells, drawn at random," if data.n_obs < total else f"{total:,} cells"
    within, between = np.median(data.obsm["z_std"]), np.median(data.obsm["z_mean"].std(axis=0))
    return (
        f"{drawn} x {data.n_vars:,} genes; standard deviation of z, median: {within:.3g} within a cell, of its mean "
        f"{between:.3g} between cells"
    )


def _trained(where: str | Path, store: str | None) -> Trained:
    with opened_run(where) as run:
        about = checkpoint.describe(run.checkpoint)
        model = load_model(run.checkpoint, about)
    settings = about.config
    if not isinstance(model, GRNVAE):
        raise InferenceError(
            f"{where}: this model ({settings['model']['kind']}) has no latent space; train one that has: "
            "model.kind=grn_vae, or the presets grn_vae, dazzle and deepsem"
        )
    origin = {"run": run.name, "checkpoint": run.checkpoint.name, "store_digest": about.store_digest}
    values = validate(ExpressionConfig, settings["expression"], where)
    view = _view(where, about, store or settings["store"], run.settings.get("view_digest"))
    return Trained(model, view, values, origin)


def _view(where: str | Path, about: checkpoint.Description, place: str, digest: str | None) -> View:
    """The cells and genes that a run saw.

    Raises:
        InferenceError: they are not to be had.
    """
    try:
        store = open_store(place)
    except StoreError as error:
        raise InferenceError(f"{error}; if the store of {where} has moved, say where it is: --store") from error
    if store.digest != about.store_digest:
        raise InferenceError(
            f"{place} is not the store that {where} was trained on (its digest differs); give that one: --store"
        )
    settings = {name: about.config[name] for name in SelectionConfig.model_fields if name in about.config}
    view = select(store, validate(SelectionConfig, settings, where))
    held_out, seed = (about.config["training"].get(name) for name in ("validation", "seed"))
    view = view if held_out is None else parted(view, held_out, seed)[0]
    if view.digest != digest:
        raise InferenceError(
            f"{where}: its settings choose other cells or genes than when it was trained; a list or table that they "
            "name has changed: bring the old one back, or train again"
        )
    return view


def _drawn(view: View, config: LatentConfig) -> View:
    """The cells that are wanted, in the order of the store."""
    number = config.cells or min(view.n_cells, CELLS)
    if number > view.n_cells:
        raise InferenceError(
            f"{view.place}: {number:,} cells are asked for and the run saw {view.n_cells:,}; lower --cells"
        )
    if number == view.n_cells:
        return view
    chosen = np.sort(stream(config.seed, "latent", "cells").choice(view.n_cells, number, replace=False))
    return replace(view, rows=view.rows[chosen], labels=None if view.labels is None else view.labels[chosen])


def _check_memory(view: View, config: LatentConfig) -> None:
    of_a_cell = 4 * view.n_genes * (config.samples + COPIES)
    needed, available = of_a_cell * view.n_cells, available_memory()
    if needed > available:
        raise InferenceError(
            f"{view.n_cells:,} cells x {view.n_genes:,} genes with {config.samples} samples of z take "
            f"{needed / GIB:,.1f} GiB, and {available / GIB:,.1f} GiB are available; ask for "
            f"--cells {available // of_a_cell} or fewer, or for fewer --samples"
        )


def _encoded(trained: Trained, view: View, config: LatentConfig) -> anndata.AnnData:
    """The cells' expression and z."""
    numbers, blocks = _numbers(config.samples), []
    shape = (view.n_cells, view.n_genes)
    obsm = {name: np.empty(shape, np.float32) for name in ["z_mean", "z_std", *(f"z_sample_{n}" for n in numbers)]}
    noise = {number: stream(config.seed, "latent", number) for number in numbers}
    for rows, values, mean, std in _posterior(trained, view):
        blocks.append(values)
        obsm["z_mean"][rows], obsm["z_std"][rows] = mean, std
        for number in numbers:
            drawn = noise[number].standard_normal(mean.shape, dtype=np.float32)
            obsm[f"z_sample_{number}"][rows] = mean + std * drawn
    whole = sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.concatenate(blocks)
    return anndata.AnnData(whole, obs=view.obs.copy(), var=view.var.copy(), obsm=obsm)


def _posterior(trained: Trained, view: View) -> Iterator[tuple[slice, Any, np.ndarray, np.ndarray]]:
    """Block by block: rows, expression, mean and standard deviation of z.

    Raises:
        InferenceError: they are not finite.
    """
    size = max(1, ENTRIES // view.n_genes)
    for rows, stored in track(view.whole_rows(size), "latent space", -(-view.n_cells // size)):
        values = expression(stored, view.totals[rows], view, trained.expression)
        dense = values if isinstance(values, np.ndarray) else values.toarray()
        mean, std = (part.numpy() for part in trained.model.posterior(torch.from_numpy(dense)))
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise InferenceError(
                f"{trained.origin['run']}: z is not finite, so training has diverged; train again with a smaller "
                "training.learning_rate"
            )
        yield rows, values, mean, std


def _numbers(samples: int) -> range:
    return range(1, samples + 1)


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """Undo what numba, inside scanpy, does to PyTorch's number of threads."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
