from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from grndist.data.perturbations import Perturbations, perturbations_of
from grndist.data.store import Store
from grndist.data.view import View, whole
from grndist.genes import NON_TARGETING

N_GENES = 12  # g0 .. g11


def labelled(store: Store, *labels: str) -> View:
    """Cells that have these labels in turn."""
    return replace(whole(store), labels=pd.Categorical(np.resize(np.array(labels), store.n_cells)))


def members_of(view: View, known: Perturbations, label: str) -> list[int]:
    return [int(gene) for gene in known.members[view.label_names.index(label)] if gene >= 0]


def test_every_cell_has_the_inputs_of_its_label(store: Store):
    view = whole(store)
    known = perturbations_of(view)
    wanted = {NON_TARGETING: [], "g1": [1], "g3": [3], "g1+g3": [1, 3], "elsewhere": [N_GENES]}
    for name, label in zip(view.obs["perturbation"], known.label, strict=True):
        assert [gene for gene in known.members[label] if gene >= 0] == wanted[name]
        assert known.is_control[label] == (name == NON_TARGETING)
    assert known.n_labels == len(wanted)
    assert np.array_equal(known.strength, known.members >= 0)


@pytest.mark.parametrize(
    ("label", "genes"),
    [
        ("g4", [4]),
        ("g4+g2", [2, 4]),
        ("g2+g2", [2]),
        (" g2 + g4 ", [2, 4]),
        ("g4+non-targeting", [4]),
        ("g4+", [4]),
        ("unknown", []),
        ("Excluded", []),
        ("N/A", []),
        ("safe-targeting", []),
        ("g1+g2+ctrl", [1, 2]),
        ("g1|Neg_Ctrl", [1]),
        ("g1+zz+doublet", [1, N_GENES]),
        ("zz+aa+g0", [0, N_GENES, N_GENES + 1]),
    ],
)
def test_what_a_label_names(store: Store, label: str, genes: list[int]):
    view = labelled(store, NON_TARGETING, label)
    known = perturbations_of(view)
    assert members_of(view, known, label) == genes
    assert members_of(view, known, NON_TARGETING) == []
    assert known.is_control.sum() == 1


def test_unmeasured_genes_are_inputs_in_alphabetical_order_after_the_panel(store: Store):
    view = labelled(store, "zz", "aa+g1", "mm+zz")
    known = perturbations_of(view)
    assert known.unmeasured == ("aa", "mm", "zz")
    assert known.n_inputs == N_GENES + 3
    assert members_of(view, known, "mm+zz") == [N_GENES + 1, N_GENES + 2]
    assert known.perturbed.tolist() == [1, N_GENES, N_GENES + 1, N_GENES + 2]
    assert not known.is_control.any()


def test_unmeasured_genes_can_be_ignored(store: Store):
    view = labelled(store, "zz", "aa+g1")
    known = perturbations_of(view, use_unmeasured=False)
    assert known.unmeasured == ()
    assert known.n_inputs == N_GENES
    assert members_of(view, known, "zz") == []
    assert members_of(view, known, "aa+g1") == [1]


def test_single_is_the_one_input_of_labels_that_have_one(store: Store):
    view = labelled(store, NON_TARGETING, "g1", "g1+g3", "unknown", "zz")
    known = perturbations_of(view)
    single = dict(zip(view.label_names, known.single.tolist(), strict=True))
    assert single == {NON_TARGETING: -1, "g1": 1, "g1+g3": -1, "unknown": -1, "zz": N_GENES}


def test_columns_are_those_of_the_view(store: Store):
    view = replace(whole(store), columns=np.array([3, 5, 7]))
    known = perturbations_of(view)
    assert members_of(view, known, "g3") == [0]
    assert known.unmeasured == ("elsewhere", "g1")
    assert members_of(view, known, "g1+g3") == [0, 4]


def test_labels_that_no_cell_has_any_more_perturb_nothing(store: Store):
    everything = whole(store)
    controls = everything.obs["is_control"].to_numpy()
    view = replace(everything, rows=everything.rows[controls])
    known = perturbations_of(view)
    assert known.unmeasured == ()
    assert (known.members == -1).all()
    assert known.members.shape[1] == 1
    assert len(known.perturbed) == 0


def test_a_gene_with_a_plus_in_its_name_is_one_gene(store: Store):
    panel = replace(store.panel, names=("g1+g3", *store.panel.names[1:]))
    view = whole(replace(store, panel=panel))
    known = perturbations_of(view)
    assert members_of(view, known, "g1+g3") == [0]


def test_a_gene_of_the_panel_is_a_gene_whatever_else_its_name_means(store: Store):
    panel = replace(store.panel, names=("nan", "NT", *store.panel.names[2:]))
    view = labelled(replace(store, panel=panel), NON_TARGETING, "nan", "NT+g2")
    known = perturbations_of(view)
    assert members_of(view, known, "nan") == [0]
    assert members_of(view, known, "NT+g2") == [1, 2]
    assert known.unmeasured == ()
