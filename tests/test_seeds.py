import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grndist.seeds import stream

WORDS = st.lists(st.one_of(st.integers(0, 2**31), st.text(max_size=5)), min_size=1, max_size=4)


@given(seed=st.integers(0, 2**31), name=WORDS)
def test_a_stream_is_a_function_of_its_name(seed: int, name: list):
    assert np.array_equal(stream(seed, *name).random(4), stream(seed, *name).random(4))


def test_other_names_and_seeds_are_other_streams():
    draws = [
        stream(seed, *name).random()
        for seed in (0, 1)
        for name in (("cells", 0), ("cells", 1), ("genes", 0), ("cells", 0, 0))
    ]
    assert len(set(draws)) == len(draws)
