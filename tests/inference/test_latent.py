"""`grndist latent` and what it is made of; layouts by UMAP are slow to compile and are under that marker."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy import sparse

from grndist.data.ingest.build import write_store
from grndist.data.selection import select
from grndist.data.selection.split import parted
from grndist.data.store import open_store
from grndist.data.stream.loader import Loader
from grndist.data.stream.plan import ShuffledPlan
from grndist.data.view import View
from grndist.errors import UserError
from grndist.inference import latent
from grndist.inference.latent import LatentConfig, add_layouts, described, latent_of_run
from grndist.inference.network import load_model
from grndist.runs import RunConfig, load_run, train_run
from grndist.seeds import stream
from grndist.training import checkpoint
from tests.conftest import genes, small_counts
from tests.inference.checkpoints import catran, run_of
from tests.test_cli import done, grndist

RUN = {
    "preset": "dazzle",
    "store": "small.zarr",
    "cells": {"where": "perturbation != 'elsewhere'"},
    "genes": {"exclude": ["^g11$"], "regulators": "regulators.txt"},
    "expression": {"transform": "log1p"},
    "training": {"epochs": 1, "cells_per_step": 60, "threads": 1},
    "tracking": {"kind": "none"},
}


@pytest.fixture(scope="module")
def trained(pristine_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a run on part of it, to copy."""
    folder = tmp_path_factory.mktemp("latent")
    shutil.copytree(pristine_store, folder / "small.zarr")
    (folder / "regulators.txt").write_text("g1\ng2\ng3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_run(settings(RUN))
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, to be changed; its run still names the store it was trained on."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "copy"))
    return Path("runs/small")


def settings(tree: dict, *overrides: str) -> RunConfig:
    Path("small.yaml").write_text(yaml.safe_dump(tree))
    return load_run(Path("small.yaml"), list(overrides))


def seen_in_training(config: RunConfig) -> tuple[View, torch.Tensor]:
    """The cells of a run in store order, and their expression as the loader gives it to the model."""
    view = select(open_store(config.store), config)
    plan = ShuffledPlan(view.n_cells, view.n_genes, view.n_cells, view.n_genes, seed=0)
    order = np.concatenate([piece.cells for piece in plan.share(0, 0, 0)])
    return view, Loader(view, plan, config.expression).batch_at(0).expression[np.argsort(order)]


@pytest.mark.parametrize(
    ("expression", "model"),
    [({}, {}), ({"cell_minmax": True}, {}), ({}, {"zscore": "nonzero", "clip": 1.5})],
    ids=["log1p", "minmax", "zscore"],
)
def test_z_is_that_of_the_cells_as_they_were_in_training(
    expression: dict, model: dict, here: Path, monkeypatch: pytest.MonkeyPatch
):
    changes = {"expression": RUN["expression"] | expression, "model": model}
    config = settings(RUN | {"name": "other"} | changes)
    folder = Path(train_run(config).checkpoint)
    monkeypatch.setattr(latent, "ENTRIES", 500)  # several blocks
    found = latent_of_run("runs/other")
    view, given = seen_in_training(config)
    mean, std = load_model(folder, checkpoint.describe(folder)).posterior(given)
    np.testing.assert_allclose(found.obsm["z_mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.obsm["z_std"], std, rtol=1e-4)
    assert list(found.obs_names) == list(view.obs.index)
    assert "elsewhere" not in set(found.obs["perturbation"])
    assert list(found.var_names) == list(view.panel.names) == [f"g{i}" for i in range(11)]
    assert sparse.issparse(found.X) == (not expression)
    np.testing.assert_allclose(found.X.toarray() if sparse.issparse(found.X) else found.X, given, atol=1e-6)


def test_cells_that_were_held_out_of_training_are_not_in_it(here: Path):
    training = RUN["training"] | {"validation": 0.25, "seed": 3}
    config = settings(RUN | {"name": "held_out", "training": training})
    train_run(config)
    cells, held_out = parted(select(open_store(config.store), config), 0.25, 3)
    found = latent_of_run("runs/held_out")
    assert held_out.n_cells > 0
    assert list(found.obs_names) == list(cells.obs.index)


def test_samples_are_the_mean_and_noise_of_the_seed_whatever_the_blocks(here: Path, monkeypatch: pytest.MonkeyPatch):
    found = latent_of_run(here, LatentConfig(samples=2, seed=5))
    for number in (1, 2):
        noise = stream(5, "latent", number).standard_normal(found.shape, dtype=np.float32)
        expected = found.obsm["z_mean"] + found.obsm["z_std"] * noise
        np.testing.assert_allclose(found.obsm[f"z_sample_{number}"], expected, rtol=1e-5, atol=1e-6)
    assert "z_sample_3" not in found.obsm
    monkeypatch.setattr(latent, "ENTRIES", 100)
    blocks = latent_of_run(here, LatentConfig(samples=2, seed=5))
    np.testing.assert_allclose(blocks.obsm["z_sample_2"], found.obsm["z_sample_2"], rtol=1e-4, atol=1e-5)


def test_cells_are_drawn_at_random_and_are_what_they_are_among_all(here: Path):
    every, some = latent_of_run(here), latent_of_run(here, LatentConfig(cells=40, seed=1))
    other = latent_of_run(here, LatentConfig(cells=40, seed=2))
    assert some.n_obs == 40
    assert set(some.obs_names) != set(other.obs_names)
    same = every[some.obs_names]
    assert list(same.obs_names) == [name for name in every.obs_names if name in set(some.obs_names)]
    np.testing.assert_allclose(some.obsm["z_mean"], same.obsm["z_mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(some.X.toarray(), same.X.toarray(), rtol=1e-6)
    assert described(some).startswith(f"40 of {every.n_obs} cells, drawn at random, x 11 genes; standard deviation")
    assert described(every).startswith(f"{every.n_obs} cells x 11 genes; ")


def test_a_store_that_has_moved_is_named(here: Path):
    config = yaml.safe_load((here / "config.yaml").read_text())
    moved = Path(shutil.move(config["store"], "elsewhere.zarr"))
    try:
        with pytest.raises(UserError, match=r"small\.zarr: no such store.*has moved, say where it is: --store"):
            latent_of_run(here)
        assert latent_of_run(here, store="elsewhere.zarr").n_obs > 100
    finally:
        shutil.move(moved, config["store"])


def test_another_store_is_refused(here: Path):
    counts, obs = small_counts(seed=1)
    write_store(Path("other.zarr"), counts, obs, genes(12), "counts", {"name": "made here"})
    with pytest.raises(UserError, match=r"other\.zarr is not the store that .*small was trained on .*: --store"):
        latent_of_run(here, store="other.zarr")


@pytest.mark.parametrize(
    ("lines", "words"),
    [("g1\ng2\n", "other cells or genes than when it was trained; a list"), (None, "txt: no such file; genes.regu")],
)
def test_a_list_of_genes_that_is_no_longer_what_it_was_is_refused(lines: str | None, words: str, here: Path):
    file = Path(yaml.safe_load((here / "config.yaml").read_text())["genes"]["regulators"])
    before = file.read_text()
    file.unlink() if lines is None else file.write_text(lines)
    try:
        with pytest.raises(UserError, match=words):
            latent_of_run(here)
    finally:
        file.write_text(before)


def test_a_model_that_has_diverged_is_refused(here: Path):
    file = checkpoint.latest(here / "checkpoints") / "weights.safetensors"
    weights = load_file(file)
    weights["weight"][0] = torch.nan
    save_file(weights, file)
    with pytest.raises(UserError, match=r"small: z is not finite, so training has diverged"):
        latent_of_run(here)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LatentConfig(cells=301), r"small\.zarr: 301 cells are asked for and the run saw \d+; lower --cells"),
        (LatentConfig(samples=10**9), r"GiB, and [\d.,]+ GiB are available; ask for --cells \d+ or fewer"),
        (LatentConfig(colour="batch"), r"--colour batch: the table of cells has the columns .*'perturbation'"),
    ],
)
def test_what_cannot_be_had_is_refused(config: LatentConfig, words: str, here: Path):
    with pytest.raises(UserError, match=words):
        latent_of_run(here, config)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("latent catran", "catran: this model (catran) has no latent space; train one that has: model.kind=grn_vae"),
        ("latent nowhere", "nowhere is not a run directory"),
        ("latent runs/small -o z.parquet", "z.parquet: the latent space is an AnnData; give a name that ends in .h5ad"),
        ("latent runs/small --plot z.pdf", "z.pdf: the figure is a PNG; give a name that ends in .png"),
        ("latent runs/small --plot taken.png", "taken.png exists already; pass --overwrite"),
        ("latent runs/small --cells 12", "a UMAP needs 16 cells or more, and there are 12"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(line: str, words: str, here: Path):
    run_of(Path("catran"), catran())
    Path("taken.png").touch()
    before = sorted(Path().rglob("*"))
    said = grndist(line)
    assert (said.status, said.out) == (2, "")
    assert words in said.err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.slow
def test_the_command_writes_an_anndata_and_a_figure(here: Path):
    said = grndist("latent runs/small --samples 2 --cells 60 --colour n_genes")
    assert (said.status, said.err) == (0, "")
    assert "60 of " in said.out
    assert "runs/small/latent.h5ad: z_mean, z_std, z_sample_1 to 2 and their UMAPs in obsm" in said.out
    assert "next: look at runs/small/latent.png" in said.out
    assert (here / "latent.png").read_bytes().startswith(b"\x89PNG")
    data = anndata.read_h5ad(here / "latent.h5ad")
    names = {"z_mean", "z_std", *(f"{kind}_{n}" for kind in ("z_sample", "X_umap_sample") for n in (1, 2))}
    assert set(data.obsm) == names | {"X_umap", "X_umap_latent"}
    assert data.uns["latent"]["checkpoint"] == checkpoint.latest(here / "checkpoints").name
    assert "exists already; pass --overwrite" in grndist("latent runs/small").err
    done("latent runs/small -o again.h5ad --samples 2 --cells 60")
    again = anndata.read_h5ad("again.h5ad")
    assert all(np.array_equal(again.obsm[name], data.obsm[name]) for name in data.obsm)


@pytest.mark.slow
def test_layouts_are_of_samples_alone_and_leave_the_threads_as_they_were(here: Path):
    data = latent_of_run(here, LatentConfig(samples=2))
    torch.set_num_threads(1)
    add_layouts(data)
    assert torch.get_num_threads() == 1
    samples = [data.obsm[f"X_umap_sample_{number}"] for number in (1, 2)]
    np.testing.assert_allclose(data.obsm["X_umap_latent"], np.mean(samples, axis=0), rtol=1e-6)
    other = data.copy()
    other.obsm["z_mean"] = other.obsm["z_mean"][::-1]
    add_layouts(other)
    assert np.array_equal(other.obsm["X_umap_latent"], data.obsm["X_umap_latent"])
