import numpy as np
import pytest

from grndist.errors import UserError
from grndist.genes import CONTROL, NON_TARGETING, UNMAPPED, GenePanel

PANEL = GenePanel(("STAT1", "JAK2", "IRF1"))


def test_labels_become_columns_and_combined_or_unknown_ones_do_not():
    labels = ["JAK2", NON_TARGETING, "STAT1+JAK2", "MYC", "STAT1"]
    assert PANEL.perturbed_columns(labels).tolist() == [1, CONTROL, UNMAPPED, UNMAPPED, 0]


def test_columns_keep_the_order_asked_for():
    assert PANEL.columns(["IRF1", "STAT1"]).tolist() == [2, 0]


def test_unknown_genes_are_named():
    with pytest.raises(UserError, match="2 genes are not in the panel, among them 'MYC', 'SPI1'"):
        PANEL.columns(["STAT1", "MYC", "SPI1"])


def test_regulators_are_a_mask_over_the_panel():
    mask = PANEL.with_regulators(["JAK2"]).is_regulator
    assert mask is not None
    assert np.array_equal(mask, [False, True, False])
