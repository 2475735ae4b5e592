import numpy as np
import pandas as pd
import pytest

from grndist.errors import UserError
from grndist.plots import score_figure, write_figure


def scores() -> pd.DataFrame:
    rows = [
        {"network": name, "baseline": name == "random", "reference": reference, "lineage": lineage, "EPR": at + 0.5}
        for reference in ("STRING", "CORUM")
        for lineage in ("DAZZLE", "BEELINE")
        for at, name in enumerate(["random", "a", "b"])
    ]
    return pd.DataFrame(rows).assign(F1=np.nan)


def test_every_score_is_drawn_at_its_network_and_baselines_come_last(tmp_path):
    figure = score_figure(scores(), {"EPR": 1.0, "F1": 0.0})
    panels = figure.axes
    assert len(panels) == 2  # a row for each reference; F1 has no value
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "b", "random"]
    dots = {line.get_label(): line for line in panels[0].lines if line.get_marker() not in ("", "None")}
    assert set(dots) == {"DAZZLE", "BEELINE"}
    assert dots["DAZZLE"].get_xdata().tolist() == [0.5, 1.5, 2.5]
    assert np.round(dots["DAZZLE"].get_ydata()).tolist() == [2, 0, 1]
    write_figure(figure, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 1000


def test_nothing_to_draw_is_refused():
    with pytest.raises(UserError, match="nothing to draw"):
        score_figure(scores(), {"F1": 0.0})
