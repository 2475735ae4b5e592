import numpy as np
import pandas as pd
import pytest

from grndist.data.ingest.columns import kept_columns, with_columns

NEW = np.array([1, 2, 3])


@pytest.mark.parametrize(
    ("own", "new"),
    [
        (NEW, NEW),
        (np.array([0.1, 2, 3], np.float32), np.array([0.1, 2, 3])),
        (pd.Categorical(["a", "b", "a"]), np.array(["a", "b", "a"], object)),
        (np.array([True, False, True]), pd.Categorical(["True", "False", "True"])),
    ],
)
def test_a_column_that_says_the_same_is_not_kept_twice(own, new):
    assert list(with_columns(pd.DataFrame({"n": own}), {"n": new}).columns) == ["n"]


@pytest.mark.parametrize("own", [[1, 2, 4], ["a", 2, None], [1.0, 2.0, np.nan], pd.Categorical(["x", None, "y"])])
def test_a_column_that_says_something_else_is_kept(own):
    table = pd.DataFrame({"n": own, "source_n": 0, "other": 5}, index=list("abc"))
    before = table.copy()
    found = with_columns(table[[True, True, True]], {"n": NEW, "source_row": NEW})
    assert list(found.columns) == ["source_source_n", "source_n", "other", "n", "source_row"]
    pd.testing.assert_series_equal(found["source_source_n"], before["n"], check_names=False)
    assert found["n"].tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(table, before)
    assert kept_columns(before.columns, found.columns) == ["source_source_n"]
