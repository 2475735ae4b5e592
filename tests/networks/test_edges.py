import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.networks.edges import COLUMNS, edge_list

PAIRS = [(a, b) for a in "abcde" for b in "abcde" if a != b]


@given(
    edges=st.lists(
        st.tuples(st.sampled_from(PAIRS), st.integers(-3, 3).map(float)), min_size=1, unique_by=lambda edge: edge[0]
    ).flatmap(lambda edges: st.tuples(st.just(edges), st.permutations(edges)))
)
def test_the_order_of_the_input_does_not_matter(edges):
    one, other = (edge_list(*zip(*((*pair, weight) for pair, weight in rows), strict=True)) for rows in edges)
    assert one.table.equals(other.table)


def test_edges_are_sorted_by_falling_absolute_weight_then_by_name():
    edges = edge_list(["b", "a", "a", "c"], ["a", "c", "b", "a"], [1.0, -2.0, 1.0, -1.0])
    assert list(edges.table.columns) == COLUMNS
    assert edges.table.to_numpy().tolist() == [["a", "c", -2], ["a", "b", 1], ["b", "a", 1], ["c", "a", -1]]
    assert len(edges) == 4


def test_what_is_said_about_the_edges_is_kept():
    edges = edge_list(["a"], ["b"], [1.0], genes=["a", "b", "c"], signed=True, origin={"run": "x"})
    assert (edges.genes, edges.signed, dict(edges.origin)) == (("a", "b", "c"), True, {"run": "x"})


def test_both_directions_of_a_pair_are_two_edges():
    assert len(edge_list(["a", "b"], ["b", "a"], [1.0, 1.0])) == 2


@pytest.mark.parametrize(
    ("regulators", "targets", "weights", "message"),
    [
        (["a"], ["a"], [1.0], "self-loops"),
        (["a", "a"], ["b", "b"], [1.0, 2.0], "at most once"),
        (["a"], ["b"], [np.nan], "not finite"),
        (["a"], ["b"], [-np.inf], "not finite"),
    ],
)
def test_what_is_no_edge_list_is_refused(regulators, targets, weights, message):
    with pytest.raises(ValueError, match=message):
        edge_list(regulators, targets, weights)
