import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grndist.networks.strongest import Block, strongest

# few values, so that most are tied, of both signs
WEIGHTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([-2, -1, -0.5, 0, 0, 0.5, 1, 2, 3]),
)


def blocks(weights: np.ndarray, rows: int):
    for start in range(0, len(weights), rows):
        part = weights[start : start + rows]
        yield Block(slice(start, start + len(part)), part)


@given(
    weights=WEIGHTS, rows=st.integers(1, 9), limit=st.integers(1, 90), threshold=st.sampled_from([0.0, 0.5, 0.7, 4.0])
)
def test_it_is_the_head_of_a_stable_full_sort(weights: np.ndarray, rows: int, limit: int, threshold: float):
    strength = np.abs(weights).ravel()
    order = np.argsort(-strength, kind="stable")
    order = order[(strength[order] > 0) & (strength[order] >= threshold)]
    for wanted, asked in ((np.sort(order[:limit]), limit), (np.sort(order), None)):
        edges = strongest(blocks(weights, rows), asked, threshold)
        assert np.array_equal(edges.regulators * weights.shape[1] + edges.targets, wanted)
        assert np.array_equal(edges.weights, weights.ravel()[wanted])


def test_a_network_without_edges_has_no_strongest():
    assert len(strongest(blocks(np.zeros((4, 3), np.float32), 2), 5)) == 0
    assert len(strongest(iter([]), 5)) == 0


def test_memory_does_not_grow_with_the_number_of_blocks():
    def peak(n_blocks: int) -> int:
        rng = np.random.default_rng(0)
        parts = (Block(slice(20 * i, 20 * i + 20), rng.random((20, 500), dtype=np.float32)) for i in range(n_blocks))
        tracemalloc.start()
        try:
            assert len(strongest(parts, 300)) == 300
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < 1.2 * peak(2)
