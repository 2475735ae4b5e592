import numpy as np
import pandas as pd
import pytest

from grndist.data.selection.where import holds
from grndist.data.view import SelectionError

OBS = pd.DataFrame({"depth": [10.0, 200.0, np.nan], "batch": ["a", "b", "b"], "doublet": [True, None, False]})


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("depth > 50", [False, True, False]),
        ("batch == 'b' and not (depth > 50)", [False, False, True]),
        ("doublet", [True, False, False]),
        ("batch in ['a']", [True, False, False]),
    ],
)
def test_it_is_evaluated_for_each_cell(where: str, wanted: list[bool]):
    assert holds(OBS, where, "s", "--where").tolist() == wanted


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("deep > 50", r"s.zarr: cells.where 'deep > 50': .*'deep' is not defined; its columns are 'depth', 'batch'"),
        ("depth >", "cannot be evaluated"),
        ("batch > 3", "cannot be evaluated"),
        ("depth", "is not true or false for each cell; compare, e.g. 'depth > 0'"),
        ("3 > 2", "is not true or false for each cell"),
        ("@pd.io", "cannot be evaluated|is not defined"),
        ("depth.mean() > 3", "is not true or false for each cell"),
    ],
)
def test_what_is_no_condition_is_refused(where: str, words: str):
    with pytest.raises(SelectionError, match=words):
        holds(OBS, where, "s.zarr", "cells.where", SelectionError)
