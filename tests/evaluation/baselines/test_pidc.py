from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grndist.evaluation.baselines.information import block_edges
from grndist.evaluation.baselines.pidc import binned, in_context, pidc_weights, puc
from grndist.seeds import stream


def expression(cells: int = 600, genes: int = 6) -> np.ndarray:
    rng = stream(0, "test-pidc")
    values = rng.normal(size=(cells, genes))
    values[:, 1] = values[:, 0] + values[:, 1] / 2
    values[:, 2] = values[:, 1] + values[:, 2] / 2
    values[:, 3] = np.round(np.maximum(values[:, 3] + values[:, 2], 0))  # zeros and ties, as expression has
    values[:, 5] = values[:, 5] + values[:, 4] > 0.5
    return values


def edges_of(values: list[float]) -> list[float]:
    different, counts = np.unique(np.array(values, dtype=float), return_counts=True)
    return block_edges(different, counts).tolist()


@pytest.mark.parametrize(
    ("values", "edges"),
    [([1, 2, 3, 4, 5, 6], [1, 6]), ([6, 2, 30, 4, 1, 1], [1, 1.5, 30]), ([1, 2, 2, 2, 3], [1, 3])],
)
def test_blocks_are_those_of_discretizers_jl(values: list[float], edges: list[float]):
    assert edges_of(values) == edges  # the examples of its own tests, v3


@given(st.lists(st.integers(0, 40), min_size=2, max_size=30).filter(lambda values: len(set(values)) in range(2, 10)))
def test_blocks_are_worth_as_much_as_the_best_of_all_partitions(values: list[int]):
    different, counts = np.unique(np.array(values, dtype=float), return_counts=True)
    n = len(different)
    cells = np.concatenate([different[:1], (different[1:] + different[:-1]) / 2, different[-1:]])

    def worth(cuts: tuple[int, ...]) -> float:
        total = 0.0
        for start, end in zip((0, *cuts), (*cuts, n), strict=True):
            inside = counts[start:end].sum()
            total += inside * np.log(inside / (cells[end] - cells[start])) - (4 - np.log(73.53 * 0.05 * end**-0.478))
        return total

    best = max(map(worth, chain.from_iterable(combinations(range(1, n), size) for size in range(n))))
    found = block_edges(different, counts)
    assert worth(tuple(np.flatnonzero(np.isin(cells, found[1:-1])))) == pytest.approx(best)


def plain_puc(bins: np.ndarray, n_bins: np.ndarray) -> np.ndarray:
    """By definition, from the joint distribution of every triplet."""
    found = np.zeros((len(bins), len(bins)))
    for triplet in combinations(range(len(bins)), 3):
        for z in triplet:
            x, y = (gene for gene in triplet if gene != z)
            joint = np.zeros((n_bins[x], n_bins[y], n_bins[z]))
            np.add.at(joint, (bins[x], bins[y], bins[z]), 1 / bins.shape[1])
            p = joint.sum(axis=(0, 1))
            specific = [_specific(joint.sum(axis=1)), _specific(joint.sum(axis=0))]
            redundancy = (p * np.minimum(*specific)).sum()
            for source, of_source in zip((x, y), specific, strict=True):
                mutual = (p * of_source).sum()
                share = max(mutual - redundancy, 0) / mutual if mutual > 1e-12 else 0
                found[source, z] += share
                found[z, source] += share
    return found


def _specific(joint: np.ndarray) -> np.ndarray:
    """Specific information of a source (rows) about each value of the target (columns)."""
    given_target, source = joint / joint.sum(axis=0), joint.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(given_target * np.log2(given_target / source)).sum(axis=0)


def test_unique_contributions_are_those_of_the_plain_loop_over_triplets():
    bins, n_bins = binned(expression())
    assert len(set(n_bins)) > 2
    np.testing.assert_allclose(puc(bins, n_bins), plain_puc(bins, n_bins), atol=1e-10)


def test_context_is_the_gamma_distribution_of_each_genes_scores():
    scores = puc(*binned(expression()))
    fitted = [stats.gamma.fit(np.delete(row, gene), floc=0) for gene, row in enumerate(scores)]
    share = np.array([stats.gamma.cdf(row, *parameters) for row, parameters in zip(scores, fitted, strict=True)])
    np.testing.assert_allclose(in_context(scores), share + share.T, atol=1e-6)


def test_a_chain_is_found_and_its_ends_are_not_joined():
    weights = pidc_weights(expression())
    assert np.array_equal(weights, weights.T)
    assert not weights.diagonal().any()
    assert weights.min() >= 0
    assert weights.max() <= 2
    scores = puc(*binned(expression()))
    assert scores[0, 2] < min(scores[0, 1], scores[1, 2])


def test_a_gene_that_never_changes_has_no_edges_and_changes_no_others():
    values = expression()
    constant = np.insert(values, 3, 1.0, axis=1)
    weights = pidc_weights(constant)
    assert not weights[3].any()
    scores = np.delete(np.delete(puc(*binned(constant)), 3, 0), 3, 1)
    others = ~np.eye(len(scores), dtype=bool)
    without = puc(*binned(values))
    # with nothing in common with it, all that two genes share is unique: one more in each direction
    np.testing.assert_allclose((scores - without)[others], 2, atol=1e-9)


def test_weights_go_with_their_genes():
    order = [4, 2, 0, 5, 1, 3]
    weights = pidc_weights(expression())
    np.testing.assert_allclose(pidc_weights(expression()[:, order]), weights[np.ix_(order, order)], atol=1e-12)
