from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grndist.data.store import Store
from grndist.data.view import SelectionError, View, kept_cells, kept_genes, whole
from grndist.genes import CONTROL, UNMAPPED
from tests.conftest import LABELS
from tests.data.selection.selecting import dense, perturb_seq_store, said


def test_the_whole_is_the_store(store: Store):
    view = whole(store)
    assert (view.n_cells, view.n_genes, view.state) == (store.n_cells, store.n_genes, store.state)
    assert view.median_total == store.median_total
    assert view.panel == store.panel
    assert view.obs.equals(store.obs)
    assert np.array_equal(view.perturbed, store.perturbed)
    assert np.array_equal(view.totals, store.totals)
    assert np.array_equal(dense(view), store.read_rows(0, 300).toarray())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.sets(st.integers(0, 299), min_size=1),
    columns=st.sets(st.integers(0, 11), min_size=1),
    size=st.integers(1, 400),
)
def test_blocks_hold_its_cells_and_genes(store: Store, rows: set[int], columns: set[int], size: int):
    view = replace(whole(store), rows=np.array(sorted(rows)), columns=np.array(sorted(columns)))
    wanted = store.read_rows(0, 300).toarray()[view.rows][:, view.columns]
    parts = list(view.blocks(size))
    assert np.array_equal(np.concatenate([values.toarray() for _, values in parts]), wanted)
    assert [part.start for part, _ in parts] == list(range(0, view.n_cells, size))
    assert parts[-1][0].stop == view.n_cells
    assert np.array_equal(view.totals, store.totals[view.rows])  # over all genes
    assert list(view.panel.names) == [f"g{column}" for column in view.columns]
    assert list(view.obs.index) == list(store.obs.index[view.rows])


def test_a_view_of_few_cells_far_apart(tmp_path: Path):
    store = perturb_seq_store(tmp_path)
    view = replace(whole(store), rows=np.array([0, 1023, 1024, 1429]))
    assert np.array_equal(dense(view), store.read_rows(0, store.n_cells).toarray()[view.rows])


def test_perturbed_columns_are_those_of_the_view(store: Store):
    view = replace(whole(store), columns=np.array([0, 3, 5]))
    labels = view.obs["perturbation"].astype(str).to_numpy()
    wanted = {LABELS[0]: CONTROL, "g1": UNMAPPED, "g3": 1, "g1+g3": UNMAPPED, "elsewhere": UNMAPPED}
    assert view.perturbed.tolist() == [wanted[label] for label in labels]


def test_the_digest_follows_what_a_run_sees(store: Store):
    view = whole(store)
    others = [
        replace(view, rows=view.rows[1:]),
        replace(view, columns=view.columns[1:]),
        replace(view, rows=view.rows[1:], columns=view.columns[1:]),
        replace(view, median_total=view.median_total + 1),
        replace(view, is_regulator=np.arange(12) < 4),
        replace(view, labels=view.obs["perturbation"].array.rename_categories({"g1": "elsewhere+"})),
    ]
    assert len({view.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert replace(view, lines=("said",)).digest == whole(store).digest == view.digest


def test_what_is_kept_is_said(store: Store):
    view = kept_genes(kept_cells(whole(store), np.arange(300) < 200, "a rule"), np.arange(12) > 0, "another")
    assert (view.n_cells, view.n_genes) == (200, 11)
    assert view.lines == ("cells: 200 of 300 kept by a rule", "genes: 11 of 12 kept by another")


@pytest.mark.parametrize("what", ["cells", "genes"])
def test_nothing_left_is_refused(store: Store, what: str):
    keep: dict[str, tuple] = {"cells": (kept_cells, np.zeros(300, bool)), "genes": (kept_genes, np.zeros(12, bool))}
    function, none = keep[what]
    with pytest.raises(
        SelectionError, match=rf"small.zarr: cells.x 3 keeps none of the .* {what} left by then; loosen"
    ):
        function(whole(store), none, "cells.x 3")


def test_regulators_are_part_of_its_panel(store: Store):
    view: View = replace(whole(store), is_regulator=np.arange(12) < 4)
    assert view.panel.is_regulator is not None
    assert view.panel.is_regulator.sum() == 4
    assert not said(view, "regulate")
