import pandas as pd
import pytest

from grndist.plots import PlotError, comparison_figure

TABLE = pd.DataFrame(
    [("one", "a", 1.0), ("one", "a", 2.0), ("one", "b", 4.0), ("two", "b", 0.5)], columns=["panel", "method", "value"]
)


def test_a_panel_for_each_data_set_and_a_bar_for_each_method_that_has_a_value():
    figure = comparison_figure(TABLE, ["a", "b", "c"], 1.0, "EPR")
    one, two = figure.axes
    assert [panel.get_title(loc="left") for panel in (one, two)] == ["one", "two"]
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in one.patches] == [(0, 1.5), (1, 4.0)]
    assert [bar.get_width() for bar in two.patches] == [0.5]
    assert [label.get_text() for label in one.get_yticklabels()] == ["a", "b", "c"]
    points = [line.get_xdata().tolist() for line in one.lines if line.get_marker() == "o"]
    assert points == [[1.0, 2.0], [4.0]]
    assert "dashed: chance (1)" in figure._supxlabel.get_text()


def test_nothing_is_not_drawn():
    with pytest.raises(PlotError, match="nothing to draw"):
        comparison_figure(TABLE[:0], ["a"], None, "EPR")
