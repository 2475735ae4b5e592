from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from grndist.tracking.keys import flat


@settings(deadline=None)  # the first example imports MLflow
@given(
    st.recursive(st.integers(), lambda inner: st.dictionaries(st.text(max_size=300), inner, max_size=3), max_leaves=8)
)
@example({"": 1, ".": 2, "..": {"": 3}, "../x": 4, "a//b": 5, "a\n": 6})
def test_every_key_becomes_one_that_mlflow_takes(tree: Any):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    for key in flat(tree if isinstance(tree, dict) else {"x": tree}):
        _validate_param_name(key)
        _validate_metric_name(key)
        assert len(key) <= 250
