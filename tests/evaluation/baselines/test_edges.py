import numpy as np
import pandas as pd
import pytest

from grndist.data.moments import effects, sums
from grndist.data.normalise import ExpressionConfig
from grndist.data.perturbations import perturbations_of
from grndist.data.selection import SelectionConfig, select
from grndist.data.simulate import Simulation
from grndist.data.store import Store
from grndist.data.view import View, whole
from grndist.effects import edge_log_odds, posterior_log_odds, without_self
from grndist.evaluation.baselines import METHODS, SIGNED, BaselineError, baseline_edges, evidence
from grndist.networks.edges import EdgeList

CHEAP = [method for method in METHODS if method not in ("genie3", "grnboost2")]


def matrix(edges: EdgeList, view: View) -> pd.DataFrame:
    """Weights [regulators, targets], 0 where there is no edge."""
    found = edges.table.pivot_table(index="regulator", columns="target", values="weight", observed=True)
    return found.reindex(columns=view.panel.names).fillna(0)


def dense(view: View) -> np.ndarray:
    return np.vstack(list(evidence.dense_blocks(view))).astype(np.float64)


@pytest.mark.parametrize("method", CHEAP)
def test_every_method_ranks_pairs_of_two_genes_better_than_chance(method: str, view: View, simulation: Simulation):
    edges = baseline_edges(view, method)
    assert edges.signed == (method in SIGNED)
    assert edges.genes == view.panel.names
    assert edges.origin["model"] == method
    assert set(edges.table["regulator"]) | set(edges.table["target"]) <= set(view.panel.names)
    true = simulation.network.set_index(["regulator", "target"])["weight"]
    top = edges.table.head(30).set_index(["regulator", "target"])["weight"]
    hits = top.index.intersection(true.index)
    if method == "random":
        assert len(edges) == 40 * 39
        return
    assert len(hits) / 30 > 3 * len(true) / (40 * 39)
    if method in SIGNED:
        assert (np.sign(top[hits]) == np.sign(true[hits])).mean() > 0.8


def test_correlation_is_numpys_with_its_sign(view: View):
    found = matrix(baseline_edges(view, "correlation"), view).loc[list(view.panel.names)].to_numpy()
    expected = np.corrcoef(dense(view).T)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found < 0).any()


def test_partial_correlation_is_that_of_the_shrunk_correlation_matrix(view: View):
    found = matrix(baseline_edges(view, "partial_correlation"), view).loc[list(view.panel.names)].to_numpy()
    precision = np.linalg.inv(0.5 * np.corrcoef(dense(view).T) + 0.5 * np.eye(view.n_genes))
    expected = -precision / np.sqrt(np.outer(precision.diagonal(), precision.diagonal()))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("unit", ["log", "z"])
def test_mean_differences_are_those_of_the_groups_and_a_lowered_target_is_activated(view: View, unit: str):
    found = matrix(baseline_edges(view, f"mean_difference_{unit}"), view)
    values, labels = dense(view), view.obs["perturbation"].astype(str).to_numpy()
    control = values[labels == "non-targeting"]
    assert set(found.index) == set(labels) - {"non-targeting"}
    for name in found.index:
        own = values[labels == name]
        expected = control.mean(axis=0) - own.mean(axis=0)
        if unit == "z":
            expected /= values.std(axis=0) * np.sqrt(1 / len(own) + 1 / len(control))
        expected[view.panel.index[name]] = 0
        np.testing.assert_allclose(found.loc[name], expected, rtol=1e-4, atol=1e-4)


def test_the_knocked_down_repressor_and_the_gene_that_was_not_measured(store: Store):
    found = matrix(baseline_edges(whole(store), "mean_difference_z"), whole(store))
    assert list(found.index) == ["elsewhere", "g1", "g3"]
    assert found.loc["g1"].idxmin() == "g5"  # tripled by the knock-down of g1
    assert set(baseline_edges(whole(store), "blend").table["regulator"]) == set(store.panel.names)


def of_screen(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Effects in standard errors, NaN for itself, and which genes are perturbed."""
    guides = perturbations_of(view)
    found = effects(sums(view, ExpressionConfig(), guides, products=False), guides)
    return without_self(found.z, found.inputs), found.inputs


def test_odds_are_on_the_scale_of_catran_d_and_have_the_sign_of_regulation(view: View):
    z, inputs = of_screen(view)
    found = matrix(baseline_edges(view, "mean_difference_odds"), view)
    assert list(found.index) == sorted(view.panel.names[at] for at in inputs)
    expected = np.nan_to_num(-np.sign(z) * np.logaddexp(0, np.nan_to_num(posterior_log_odds(z))))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_blend_has_perturbed_and_other_regulators_on_one_scale(view: View):
    z, inputs = of_screen(view)
    names = list(view.panel.names)
    partial = matrix(baseline_edges(view, "partial_correlation"), view).loc[names].to_numpy().copy()
    np.fill_diagonal(partial, np.nan)
    found = matrix(baseline_edges(view, "blend"), view).loc[names].to_numpy()
    expected = np.nan_to_num(np.logaddexp(0, np.nan_to_num(edge_log_odds(z, partial, inputs))))
    off = ~np.eye(len(names), dtype=bool)
    np.testing.assert_allclose(np.abs(found[off]), expected[off], rtol=1e-6)
    others = np.setdiff1d(np.arange(len(names)), inputs)
    assert np.array_equal(np.sign(found[others]), np.sign(np.nan_to_num(partial[others])))
    strong = np.nan_to_num(np.abs(z)) > 8
    assert np.array_equal(np.sign(found[inputs][strong]), -np.sign(z[strong]))


@pytest.mark.parametrize("method", ["random", "correlation", "pidc"])
def test_the_order_of_genes_is_of_no_account(method: str, stored):
    one, other = stored(), stored(order_seed=3, profile="archive")
    assert one.panel.names != other.panel.names
    one, other = (baseline_edges(each, method, k=101).table for each in (one, other))  # an odd k cuts a tied pair
    if method == "correlation":  # summed in another order
        assert one[["regulator", "target"]].equals(other[["regulator", "target"]])
        np.testing.assert_allclose(one["weight"], other["weight"], rtol=1e-12)
    else:
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("method", ["random", "partial_correlation", "blend"])
def test_k_and_regulators_limit_the_whole_list(method: str, view: View):
    every = baseline_edges(view, method, seed=5).table
    pd.testing.assert_frame_equal(baseline_edges(view, method, k=77, seed=5).table, every.head(77))
    some = [view.panel.names[3], view.panel.names[20], "unknown"]
    limited = baseline_edges(view, method, regulators=some, seed=5).table
    pd.testing.assert_frame_equal(limited, every[every["regulator"].isin(some)].reset_index(drop=True))


def test_a_random_network_depends_on_the_seed(view: View):
    first, second = (baseline_edges(view, "random", k=50, seed=seed).table for seed in (0, 1))
    assert not first.equals(second)


def test_the_views_own_regulators_are_the_candidates(view: View, tmp_path):
    (tmp_path / "tf.txt").write_text("\n".join(view.panel.names[:5]))
    chosen = select(view.store, SelectionConfig.model_validate({"genes": {"regulators": str(tmp_path / "tf.txt")}}))
    assert set(baseline_edges(chosen, "correlation").table["regulator"]) == set(view.panel.names[:5])
    with pytest.raises(BaselineError, match="no regulator is left of the 40"):
        baseline_edges(chosen, "correlation", regulators=["gene40"])


@pytest.mark.parametrize(
    ("where", "lacking"),
    [("perturbation == 'non-targeting'", "perturbed genes"), ("perturbation != 'non-targeting'", "control cells")],
)
@pytest.mark.parametrize("method", ["mean_difference_log", "blend"])
def test_without_two_kinds_of_cells_there_is_no_difference(method: str, where: str, lacking: str, view: View):
    chosen = select(view.store, SelectionConfig.model_validate({"cells": {"where": where}}))
    with pytest.raises(BaselineError, match=f"there are no {lacking} among the"):
        baseline_edges(chosen, method)


def test_too_many_genes_for_pidc_are_refused(view: View, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_GENES", 39)
    with pytest.raises(BaselineError, match="pidc is for 39 genes at most and there are 40"):
        baseline_edges(view, "pidc")


def test_an_unknown_method_is_named(view: View):
    with pytest.raises(BaselineError, match=r"no baseline 'genie'; choose one of random, .*, grnboost2"):
        baseline_edges(view, "genie")
