from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import mannwhitneyu, wasserstein_distance

from grndist.data.ingest.build import write_store
from grndist.data.normalise import ExpressionConfig, expression
from grndist.data.store import Store, open_store
from grndist.data.view import View, whole
from grndist.errors import UserError
from grndist.evaluation.interventional import mean_wasserstein, perturbed_genes, rank_sum_precision, score_edges
from grndist.networks.edges import EdgeList, edge_list
from tests.conftest import genes

NAMES = [f"g{i}" for i in range(12)]


def network(regulators: list[str], targets: list[str], seed: int = 0) -> EdgeList:
    pairs = [(r, t) for r in regulators for t in targets if r != t]
    weights = np.random.default_rng(seed).normal(size=len(pairs))
    return edge_list(*zip(*pairs, strict=True), weights, NAMES)


def by_hand(view: View, edges: EdgeList, config: ExpressionConfig) -> pd.DataFrame:
    """One edge after the other, with SciPy."""
    dense = np.zeros((view.n_cells, view.n_genes))
    for rows, stored in view.whole_rows():
        found = expression(stored, view.totals[rows], view, config)
        dense[rows] = found.toarray() if sparse.issparse(found) else found
    labels, rows = view.obs["perturbation"].astype(str).to_numpy(), []
    for regulator, target in edges.table[["regulator", "target"]].itertuples(index=False):
        column = dense[:, view.panel.index[target]]
        control, group = column[labels == "non-targeting"], column[labels == regulator]
        rows.append((len(group), mannwhitneyu(control, group).pvalue, wasserstein_distance(control, group)))
    return pd.DataFrame(rows, columns=["n", "p", "wasserstein"])


@pytest.mark.parametrize(
    ("memory", "config"),
    [(1, ExpressionConfig()), (3000, ExpressionConfig(transform="none", cell_minmax=True)), (2**28, None)],
)
def test_every_edge_is_what_scipy_says_of_it(store: Store, memory: int, config: ExpressionConfig | None):
    view = whole(store)
    edges = network(["g1", "g3", "elsewhere"], NAMES)
    found = score_edges(view, edges, config, memory=memory)
    pd.testing.assert_frame_equal(found[["regulator", "target", "weight"]], edges.table)
    expected = by_hand(view, edges, config or ExpressionConfig())
    pd.testing.assert_frame_equal(found[["n", "p", "wasserstein"]], expected, rtol=1e-12, atol=0)


def test_groups_of_a_few_cells_get_scipys_exact_test(tmp_path: Path):
    rng = np.random.default_rng(0)
    labels = np.repeat(["non-targeting", "g1", "g2", "g3"], [30, 1, 5, 9])
    values = sparse.csr_matrix(rng.normal(size=(45, 6)).astype(np.float32))
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(45)])
    write_store(tmp_path / "s.zarr", values, obs, genes(6), "continuous", {"name": "made here"})
    view = whole(open_store(tmp_path / "s.zarr"))
    edges = network(["g1", "g2", "g3"], NAMES[:6])
    found = score_edges(view, edges)
    expected = by_hand(view, edges, ExpressionConfig())
    pd.testing.assert_frame_equal(found[["n", "p", "wasserstein"]], expected, rtol=1e-12, atol=0)


def test_the_cells_are_those_of_the_view_with_its_labels(store: Store):
    rows = np.arange(0, store.n_cells, 2)
    labels = pd.Categorical(np.where(np.arange(len(rows)) % 3 == 0, "g7", "non-targeting"))
    view = View(store, rows, np.arange(4, 12), store.median_total, labels=labels)
    edges = network(["g7"], NAMES[4:])
    found = score_edges(view, edges)
    pd.testing.assert_frame_equal(
        found[["n", "p", "wasserstein"]], by_hand(view, edges, ExpressionConfig()), rtol=1e-12, atol=0
    )
    assert (found["n"] == (labels == "g7").sum()).all()


def test_edges_that_cannot_be_tested_are_marked_and_self_edges_dropped(store: Store):
    table = pd.DataFrame({
        "regulator": ["g5", "g1", "g1", "g1", "non-targeting", "g1+g3", "g3"],
        "target": ["g2", "g1", "unknown", "g2", "g2", "g2", "g4"],
        "weight": np.arange(7.0, 0, -1),
    })  # fmt: skip
    found = score_edges(whole(store), EdgeList(table))
    assert found["target"].tolist() == ["g2", "unknown", "g2", "g2", "g2", "g4"]
    assert (found["n"] > 0).tolist() == [False, False, True, False, True, True]
    assert found["p"].isna().tolist() == (found["n"] == 0).tolist() == found["wasserstein"].isna().tolist()


def test_k_ends_with_the_kth_testable_edge(store: Store):
    edges = network(["g1", "g3", "g5"], NAMES)
    everything = score_edges(whole(store), edges)
    for k in (1, 7, 22, 23):
        found = score_edges(whole(store), edges, k=k)
        pd.testing.assert_frame_equal(found, everything.head(len(found)))
        assert (found["n"] > 0).sum() == min(k, 22)
    assert mean_wasserstein(found, 7) == mean_wasserstein(everything, 7)


def test_measures_at_k_are_of_the_first_testable_edges():
    table = pd.DataFrame({
        "n": [5, 0, 5, 5], "p": [0.01, np.nan, 0.05, 0.04], "wasserstein": [1.0, np.nan, 2.0, 6.0],
    })  # fmt: skip
    assert mean_wasserstein(table, 2) == 1.5
    assert mean_wasserstein(table, 3) == 3
    assert rank_sum_precision(table, 2) == 0.5
    assert rank_sum_precision(table, 3) == 2 / 3
    assert rank_sum_precision(table, 3, alpha=0.02) == 1 / 3
    for measure in (mean_wasserstein, rank_sum_precision):
        with pytest.raises(UserError, match="4 edges are to be compared, but only 3 of the network's 4 are testable"):
            measure(table, 4)


def test_nothing_testable_is_refused_with_the_reason(store: Store):
    view = whole(store)
    with pytest.raises(UserError, match="none of the 11 edges is testable: their regulators \\('g5'\\) are not among"):
        score_edges(view, network(["g5"], NAMES))
    with pytest.raises(UserError, match="no edge between two different genes"):
        score_edges(view, edge_list([], [], []))
    perturbed = np.flatnonzero(store.obs["perturbation"] == "g1")
    with pytest.raises(UserError, match="is a control"):
        score_edges(replace(view, rows=view.rows[perturbed]), network(["g1"], NAMES))


def test_perturbed_genes_are_those_of_labels_of_one_gene(store: Store):
    assert perturbed_genes(whole(store)) == ["elsewhere", "g1", "g3"]


def test_the_order_of_cells_does_not_matter(store: Store, tmp_path: Path):
    order = np.random.default_rng(0).permutation(store.n_cells)
    counts, obs = store.read_rows(0, store.n_cells)[order], store.obs[["perturbation"]].iloc[order]
    write_store(tmp_path / "other.zarr", counts, obs, genes(12), "counts", {"name": "made here"})
    edges = network(["g1", "g3"], NAMES)
    found = [score_edges(whole(one), edges) for one in (store, open_store(tmp_path / "other.zarr"))]
    pd.testing.assert_frame_equal(*found, check_exact=True)
