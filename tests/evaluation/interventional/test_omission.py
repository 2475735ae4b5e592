from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grndist.data.store import Store
from grndist.data.view import whole
from grndist.errors import UserError
from grndist.evaluation.interventional import CellEffects, OmissionConfig, effects_of, omissions, paths
from grndist.evaluation.interventional.omission import Universe, drawn_pairs
from tests.evaluation.interventional.published import drawn, rounds
from tests.evaluation.interventional.test_paths import listed, random_network, table

NAMES = [f"g{i}" for i in range(12)]


def index(names: Iterable[str]) -> pd.Index:
    return pd.Index(list(names), dtype=object)


@settings(max_examples=40)
@given(n_genes=st.integers(12, 80), n_edges=st.integers(0, 120), number=st.integers(1, 60), seed=st.integers(0, 99))
def test_the_same_seed_draws_the_benchmarks_pairs(n_genes: int, n_edges: int, number: int, seed: int):
    edges, names = random_network(n_genes, n_edges, seed), [f"g{i}" for i in range(n_genes)]
    everything = Universe(index(names), index(names), index(names))
    reach = rounds(edges, 3)[-1]
    if n_genes * (n_genes - 1) - sum(map(len, reach.values())) <= number:
        return  # the benchmark draws for long, or for ever
    found = drawn_pairs(everything, paths(table(edges)), number, seed)
    assert listed(found) == drawn(names, reach, number, seed)


def test_pairs_that_cannot_be_tested_are_passed_over():
    among = Universe(index("abcdefgh"), index("acx"), index("abdefgh"))
    found = drawn_pairs(among, paths(table([("a", "b"), ("b", "d")])), 5, 0)
    assert len(found) == len(listed(found)) == 5
    assert set(found["regulator"]) <= {"a", "c", "x"}
    assert not listed(found) & {("a", "b"), ("a", "d")}
    assert "c" not in set(found["target"])


def test_where_fewer_pairs_are_left_out_all_are_taken():
    among = Universe(index("abc"), index("abc"), index("abc"))
    found = drawn_pairs(among, paths(table([("a", "b"), ("b", "c")]), 1), 500, 0)
    assert listed(found) == {("a", "c"), ("b", "a"), ("c", "a"), ("c", "b")}


@pytest.mark.parametrize("genes", [None, NAMES[:6]], ids=["all genes", "some genes"])
def test_the_rate_over_all_pairs_is_that_of_every_pair_left_out(store: Store, genes: list[str] | None):
    view = whole(store)
    atlas, cells = effects_of(view), CellEffects(view)
    network = paths(table([("g1", "g2"), ("g2", "g4"), ("g3", "g1"), ("elsewhere", "g3")]), 2, "true")
    exact = omissions(atlas, [network], OmissionConfig(pairs=None), genes=genes)[0]
    sources = ["g1", "g3"] if genes else ["g1", "g3", "elsewhere"]
    lead = {("g1", "g2"), ("g1", "g4"), ("g3", "g1"), ("g3", "g2"), ("elsewhere", "g3"), ("elsewhere", "g1")}
    left = [(s, t) for s in sources for t in genes or NAMES if s != t and (s, t) not in lead]
    tested = cells.test(table(left))
    assert (exact.pairs, exact.left_out) == (len(left), len(left))
    assert exact.rate == pytest.approx(float((tested["p"] < 0.05).mean()))
    assert exact.wasserstein == pytest.approx(float(tested["wasserstein"].mean()))
    sampled = omissions(cells, [network, network], OmissionConfig(pairs=1000), genes=genes)
    assert sampled[0] == sampled[1]
    assert sampled[0].rate == pytest.approx(exact.rate)


@pytest.mark.parametrize("pairs", [None, 5])
def test_a_complete_network_has_no_rate_and_says_why(store: Store, pairs: int | None):
    everything = paths(table([(s, t) for s in [*NAMES, "elsewhere"] for t in NAMES if s != t]))
    found = omissions(effects_of(whole(store)), [everything], OmissionConfig(pairs=pairs))[0]
    assert np.isnan(found.rate)
    assert (found.pairs, found.left_out) == (0, 0)
    assert "no testable pair is left out" in found.reason


def test_an_empty_network_leaves_out_everything(store: Store):
    found = omissions(effects_of(whole(store)), [paths(table([]))], OmissionConfig(pairs=None))[0]
    assert found.pairs == 11 + 11 + 12
    assert 0 < found.rate < 1


def test_all_pairs_take_an_atlas(store: Store):
    with pytest.raises(UserError, match="make an atlas of them first"):
        omissions(CellEffects(whole(store)), [paths(table([]))], OmissionConfig(pairs=None))
