"""Figures of a sweep: that they draw without a warning, whatever the trials, and that what they show is the table's."""

import numpy as np
import pandas as pd
import pytest

from grndist.plots.sweep import objective_over_time, parallel_coordinates, parameters_against_objective
from grndist.plots.trials import ORANGE

FIGURES = [parallel_coordinates, objective_over_time, parameters_against_objective]
PARAMETERS = {"model.size": "linear", "training.rate": "log", "model.form": "categorical", "model.gain": "log"}
LINES = {"random": 0.2, "default": 0.9, "mean difference": 0.91}


def trials(n: int = 12, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    form = np.array(["full", "bilinear", "attention"], dtype=object)[np.arange(n) % 3]
    return pd.DataFrame({
        "trial": np.arange(n),
        "model.size": rng.integers(4, 64, n),
        "training.rate": 10 ** rng.uniform(-5, -2, n),
        "model.form": form,
        "model.gain": np.where(form == "full", 10 ** rng.uniform(-1, 1, n), np.nan),
        "score": rng.uniform(0.5, 1, n),
        "score sd": rng.uniform(0.01, 0.05, n),
        "loss": rng.uniform(1, 2, n),
        "status": "finished",
        "seconds": np.cumsum(rng.uniform(5, 30, n)),
    })  # fmt: skip


def with_failures(n: int) -> pd.DataFrame:
    """The first one failed, the second one was stopped, the third one is far off, the fourth has no value."""
    table = trials(n)
    table.loc[0, ["score", "status"]] = np.nan, "failed"
    table.loc[1, ["score sd", "status"]] = np.nan, "stopped"
    table.loc[2, "score"] = -1e6
    table.loc[3, "score"] = np.inf
    return table


def only(**columns) -> pd.DataFrame:
    return trials().assign(**columns)


TABLES = {
    "failures": with_failures(60),  # many, too
    "one": trials(1),
    "all failed": only(status="failed", score=np.nan),
    "none finished": only(status="stopped"),
    "equal": only(score=0.9, **{"score sd": 0.0, "model.size": 8, "model.form": "full"}),
    "no such parameter": only(**{"model.gain": np.nan, "model.form": None}).drop(columns="score sd"),
    "other kinds": only(
        **{"model.form": [[1], True, "x"] * 4, "model.size": pd.Series([8, 16.0, None] * 4, dtype=object)}
    ),
    "failed without a time": only(score=[np.nan] * 2 + [1.0] * 10, seconds=[np.nan, *range(1, 12)]),
}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_drawn_without_a_warning(name: str, figure):
    figure(TABLES[name], PARAMETERS, "score", "max", LINES).draw_without_rendering()


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.__name__)
def test_less_may_be_better_and_there_may_be_nothing_to_compare_with(figure):
    figure(with_failures(12), PARAMETERS, "score", "min", {}).draw_without_rendering()


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.__name__)
def test_of_two_objectives_each_has_its_figure(figure):
    for objective, direction in (("score", "max"), ("loss", "min")):
        drawn = figure(trials(), PARAMETERS, objective, direction, {})
        best = trials()["trial"][trials()[objective].agg(f"idx{direction}")]
        drawn.draw_without_rendering()
        assert f"best: trial {best}, " in texts(drawn)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.__name__)
def test_no_value_is_said(figure):
    assert "no trial has a value of score yet" in texts(figure(TABLES["all failed"], PARAMETERS, "score", "max", LINES))


@pytest.mark.parametrize("parameters", [{}, {"training.rate": "log"}])
@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.__name__)
def test_few_parameters_are_enough(figure, parameters):
    figure(trials(), parameters, "score", "max", LINES).draw_without_rendering()


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(one.get_text() for one in figure.findobj(Text))


def marks(panel, label: str) -> list:
    return [line for line in panel.lines if line.get_label().startswith(label)]


def test_over_time_points_best_so_far_and_lines_are_the_tables():
    table = with_failures(60)
    (panel,) = objective_over_time(table, PARAMETERS, "score", "max", LINES).axes
    (finished,) = marks(panel, "finished")
    plain = table.iloc[4:]
    assert np.allclose(finished.get_xdata(), plain["seconds"] / 60)
    assert np.array_equal(finished.get_ydata(), plain["score"])
    assert marks(panel, "stopped early")[0].get_ydata().tolist() == [table["score"][1]]
    assert np.allclose(marks(panel, "failed or not")[0].get_xdata(), table["seconds"][[0, 3]] / 60)
    (far,) = marks(panel, "far worse")
    low, high = panel.get_ylim()
    assert low <= far.get_ydata()[0] < plain["score"].min()
    assert low > -5
    best = plain["score"].cummax()
    drawn = marks(panel, "best so far")[0].get_ydata()
    assert drawn[1:].tolist() == [*best, best.iloc[-1]]
    for name, value in LINES.items():
        assert marks(panel, f"{name}: ")[0].get_ydata()[0] == value
        assert low < value < high
    assert marks(panel, "best: ")[0].get_ydata()[0] == table["score"][4:].max()


def test_a_panel_for_each_parameter_shows_those_who_have_it():
    table = trials(30)
    figure = parameters_against_objective(table, PARAMETERS, "score", "min", {})
    panels = {axes.get_xlabel().split("\n")[0]: axes for axes in figure.axes}
    assert list(panels) == ["size", "rate", "form", "gain"]
    assert np.array_equal(marks(panels["size"], "finished")[0].get_xdata(), table["model.size"])
    assert np.allclose(marks(panels["rate"], "finished")[0].get_xdata(), np.log10(table["training.rate"]))
    assert "20 trials do not have it" in panels["gain"].get_xlabel()
    assert len(marks(panels["gain"], "finished")[0].get_xdata()) == 10
    form = marks(panels["form"], "finished")[0].get_xdata()
    assert np.array_equal(np.round(form), np.tile([2, 1, 0], 10))
    assert [text.get_text() for text in panels["form"].get_xticklabels()] == ["attention", "bilinear", "full"]


def test_the_best_trial_is_on_top_of_the_parallel_lines():
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_hex

    table = with_failures(60)
    panel = parallel_coordinates(table, PARAMETERS, "score", "max", LINES).axes[0]
    lines = [one for one in panel.collections if isinstance(one, PathCollection)]
    assert len(lines) == 60
    best = lines[-1]
    assert to_hex(best.get_edgecolor()[0]) == ORANGE
    assert best.get_zorder() == max(line.get_zorder() for line in lines)
    row = table.loc[table["score"].where(np.isfinite(table["score"])).idxmax()]
    places = best.get_paths()[0].vertices
    assert places[0].tolist() == [0, pytest.approx((row["model.size"] - 4) / (63 - 4), abs=0.05)]
    assert places[-1].tolist() == [4, pytest.approx(1)]
    ends = [line.get_paths()[0].vertices[-1, 0] for line in lines]
    assert ends == [3, 3] + [4] * 58  # trials without a value end before the objective
