import numpy as np
import pytest

from grndist.genes import CONTROL, NON_TARGETING, UNMAPPED, GenePanel, may_be_gene

PANEL = GenePanel(("STAT1", "JAK2", "IRF1"))


def test_labels_become_columns_and_combined_or_unknown_ones_do_not():
    labels = ["JAK2", NON_TARGETING, "STAT1+JAK2", "MYC", "STAT1"]
    assert PANEL.perturbed_columns(labels).tolist() == [1, CONTROL, UNMAPPED, UNMAPPED, 0]


def test_regulators_are_named_in_column_order_and_are_none_where_every_gene_may_regulate():
    assert GenePanel(PANEL.names, np.array([True, False, True])).regulators == ["STAT1", "IRF1"]
    assert PANEL.regulators is None


@pytest.mark.parametrize("name", ["ctrl", "Neg_Ctrl", "non-targeting", "N/A", "NaN", "", "Doublet", "safe-harbor"])
def test_what_stands_for_a_gene_in_labels_is_none(name: str):
    assert not may_be_gene(name)


@pytest.mark.parametrize("name", ["MYC", "NT5E", "NANOG", "HLA-A", "OTHER1"])
def test_other_names_may_be_genes(name: str):
    assert may_be_gene(name)
