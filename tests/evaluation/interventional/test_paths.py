import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

from grndist.evaluation.interventional import deepening, paths
from tests.evaluation.interventional.published import pairs_of, rounds


def table(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["regulator", "target"], dtype=object)


def listed(pairs: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(pairs["regulator"], pairs["target"], strict=True))


def random_network(n_genes: int, n_edges: int, seed: int) -> list[tuple[str, str]]:
    drawn = np.random.default_rng(seed).integers(0, n_genes, (n_edges, 2))
    return sorted({(f"g{a}", f"g{b}") for a, b in drawn if a != b})


NETWORKS = {"n_genes": st.integers(2, 150), "n_edges": st.integers(0, 250), "seed": st.integers(0, 999)}


@settings(max_examples=40)
@given(**NETWORKS, length=st.integers(1, 5))
def test_the_benchmarks_lengths_give_its_pairs_in_every_round(n_genes: int, n_edges: int, seed: int, length: int):
    edges = random_network(n_genes, n_edges, seed)
    found = [listed(step.pairs()) for step in deepening(table(edges), length)]
    assert found == [pairs_of(network) for network in rounds(edges, length)]
    assert paths(table(edges), length).number == len(found[-1])


@settings(max_examples=40)
@given(**NETWORKS, length=st.one_of(st.none(), st.integers(1, 6)))
def test_true_lengths_are_those_of_shortest_paths(n_genes: int, n_edges: int, seed: int, length: int | None):
    edges = random_network(n_genes, n_edges, seed)
    adjacency = np.zeros((n_genes, n_genes))
    for source, target in edges:
        adjacency[int(source[1:]), int(target[1:])] = 1
    distance = shortest_path(adjacency, unweighted=True)
    near = np.argwhere((distance > 0) & (distance <= (np.inf if length is None else length)) & np.isfinite(distance))
    assert listed(paths(table(edges), length, "true").pairs()) == {(f"g{a}", f"g{b}") for a, b in near}


def test_a_chain_shows_that_the_benchmarks_rounds_double_the_length():
    chain = table([(f"g{i}", f"g{i + 1}") for i in range(7)])
    new = {kind: np.diff([step.number for step in deepening(chain, 4, kind)]) for kind in ("causalbench", "true")}
    assert new["causalbench"].tolist() == [6, 9, 6]  # as measured on the package: up to 2, 4 and 8 edges
    assert new["true"].tolist() == [6, 5, 4]


def test_a_gene_never_leads_to_itself():
    circle = table([("a", "b"), ("b", "c"), ("c", "a"), ("c", "c")])
    found = paths(circle, None)
    assert listed(found.pairs()) == {(a, b) for a in "abc" for b in "abc" if a != b}


@pytest.mark.parametrize("lengths", ["causalbench", "true"])
def test_no_edges_lead_nowhere(lengths: str):
    assert paths(table([]), None, lengths).number == 0
