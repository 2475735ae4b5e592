from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from grndist.errors import UserError
from grndist.plots import (
    Latent,
    PlotError,
    colour_column,
    latent_figure,
    layout,
    loss_figure,
    principal_axes,
    write_figure,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_axes_are_the_principal_ones(make):
    values = (RNG.normal(size=(80, 60)) * np.linspace(5, 0.1, 60)).astype(np.float32)
    axes = principal_axes(make(values), seed=0)
    expected = PCA(50, svd_solver="full").fit(values).components_.T
    assert axes.shape == (60, 50)
    cosines = np.abs((axes * expected).sum(axis=0))[:20]  # later ones are near to equal in size
    np.testing.assert_allclose(cosines, 1, atol=1e-3)


def test_of_few_genes_the_axes_are_the_genes():
    assert np.array_equal(principal_axes(RNG.normal(size=(20, 3)), seed=0), np.eye(3))


@pytest.mark.parametrize("n_genes", [3, 60])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_cells_that_are_all_the_same_are_refused(n_genes: int, make):
    with pytest.raises(UserError, match=f"none of the {n_genes} genes varies over the 20 cells"):
        principal_axes(make(np.ones((20, n_genes))), seed=0)


def test_genes_that_do_not_vary_do_no_harm():
    values = np.zeros((30, 70))
    values[:, :4] = RNG.normal(size=(30, 4))
    projected = values @ principal_axes(values, seed=0)
    np.testing.assert_allclose(projected.var(axis=0).sum(), values.var(axis=0).sum(), rtol=1e-6)


def test_too_few_points_are_refused():
    with pytest.raises(UserError, match="a UMAP needs 16 cells or more, and there are 15"):
        layout(RNG.normal(size=(15, 3)), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("n_points", [16, 9000])  # scanpy takes other neighbours beyond 8,192
def test_groups_that_are_far_apart_are_far_apart_in_a_layout(n_points: int):
    group = np.arange(n_points) % 2
    points = RNG.normal(size=(n_points, 5)) + 30 * group[:, None] * (n_points > 16)
    found = layout(points, seed=0)
    assert np.isfinite(found).all()
    if n_points > 16:
        centres = np.array([found[group == one].mean(axis=0) for one in (0, 1)])
        nearest = np.linalg.norm(found[:, None] - centres, axis=2).argmin(axis=1)
        assert np.array_equal(nearest, group)


OBS = pd.DataFrame({
    "perturbation": [f"g{i % 3}" for i in range(90)],
    "time": np.repeat([0.0, 12, np.nan], 30),
    "count": np.arange(90),
    "flag": np.arange(90) % 2 == 0,
    "same": 1.0,
    "unknown": [np.nan] * 90,
    "clone": [f"c{min(i, 30)}" for i in range(90)],  # c30 is the largest of 31
    "batch": pd.Categorical(np.where(np.arange(90) < 9, None, "b1"), categories=["b0", "b1"]),
})  # fmt: skip


CLONES = [0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2, 20, 21, 22, 30]  # ties are broken by the order of labels


def places(n_cells: int, n_samples: int = 2) -> Latent:
    samples = tuple(RNG.normal(size=(n_cells, 2)) for _ in range(n_samples))
    return Latent(RNG.normal(size=(n_cells, 2)), np.mean(samples, axis=0), samples)


def test_the_colour_is_what_is_asked_for_else_the_perturbation():
    assert colour_column(OBS, None) == "perturbation"
    assert colour_column(OBS[:1], None) is None
    assert colour_column(OBS, "time") == "time"
    with pytest.raises(UserError, match=r"--colour day: the table of cells has the columns 'perturbation', 'time'"):
        colour_column(OBS, "day")


@pytest.mark.parametrize(
    ("colour", "legend", "bar"),
    [
        (None, ["g0", "g1", "g2"], False),
        ("time", ["missing"], True),
        ("count", [], True),
        ("flag", ["False", "True"], False),
        ("same", [], True),
        ("unknown", ["missing"], True),
        ("clone", [*(f"c{i}" for i in CLONES), "14 other labels"], False),
        ("batch", ["b1", "missing"], False),
    ],
)
def test_a_scale_or_a_legend_says_what_colours_mean(colour: str | None, legend: list[str], bar: bool):
    figure = latent_figure(places(90), OBS, colour)
    assert [text.get_text() for one in figure.legends for text in one.get_texts()] == legend
    assert [axes.get_ylabel() for axes in figure.axes[2:]] == [colour] * bar
    figure.draw_without_rendering()


def test_cells_of_one_label_have_its_colour_and_grey_ones_are_below():
    drawn = latent_figure(places(90), OBS, "batch").axes[0].collections[0]
    colours = drawn.get_facecolors()
    assert len(np.unique(colours[:9], axis=0)) == len(np.unique(colours[9:], axis=0)) == 1
    assert len(set(colours[0, :3])) == 1  # grey
    assert len(set(colours[9, :3])) > 1


@pytest.mark.parametrize(("n_cells", "hairy"), [(90, 90), (1500, 200)])
def test_hairs_join_cells_to_their_samples(n_cells: int, hairy: int):
    obs, drawn = pd.DataFrame({"perturbation": ["non-targeting"] * n_cells}), places(n_cells, 1)
    panel = latent_figure(drawn, obs, None).axes[1]
    points, hairs, cells = panel.collections
    assert np.array_equal(points.get_offsets(), drawn.samples[0])
    assert np.array_equal(cells.get_offsets(), drawn.latent)
    assert np.array_equal(hairs.get_segments(), np.stack([drawn.latent, drawn.samples[0]], axis=1)[:hairy])
    assert panel.get_title() == "Latent space z, 1 sample a cell"


def test_a_figure_is_written_once(tmp_path: Path):
    figure = latent_figure(places(90), OBS, None)
    write_figure(figure, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="exists already"):
        write_figure(figure, tmp_path / "f.png")


def test_losses_are_drawn_as_they_are_and_those_without_a_value_are_left_out():
    steps = pd.Index([2, 4, 6], name="step")
    table = pd.DataFrame({"loss": [3.0, 2.0, 1.0], "validation": [np.nan, 5.0, np.nan], "none": np.nan}, index=steps)
    figure = loss_figure(table)
    panels = {panel.get_title(loc="left"): panel.lines[0].get_xydata().tolist() for panel in figure.axes}
    assert panels == {"loss": [[2, 3], [4, 2], [6, 1]], "validation": [[4, 5]]}
    with pytest.raises(PlotError, match="no loss has a finite value"):
        loss_figure(table[["none"]])
