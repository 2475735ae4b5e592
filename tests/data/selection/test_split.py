import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grndist.data.selection.split import PARTS, split_cells
from grndist.errors import UserError


def table(sizes: list[int], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0) -> pd.DataFrame:
    labels = np.repeat([f"g{number}" for number in range(len(sizes))], sizes)
    names = [f"cell{number}" for number in range(len(labels))]
    return pd.DataFrame({"label": labels, "part": split_cells(names, labels, fractions, seed)}, index=names)


def test_parts_and_their_sizes():
    cells = table([1000, 10, 500])
    assert list(cells["part"].cat.categories) == list(PARTS)
    assert cells.groupby("label", observed=True)["part"].value_counts().unstack().to_numpy().tolist() == [
        [800, 100, 100],
        [8, 1, 1],
        [400, 50, 50],
    ]


FRACTIONS = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@given(sizes=st.lists(st.integers(2, 60), min_size=1, max_size=40), fractions=FRACTIONS)
def test_every_label_is_rounded_down_or_up_and_the_totals_match(sizes: list[int], fractions: tuple):
    cells = table(sizes, fractions)
    counts = pd.crosstab(cells["label"], cells["part"]).reindex(columns=list(PARTS), fill_value=0)
    counts = counts.loc[[f"g{number}" for number in range(len(sizes))]].to_numpy()
    exact = np.outer(sizes, fractions)
    assert np.array_equal(counts.sum(1), sizes)
    assert (np.abs(counts - exact) < 1 + 1e-6).all()
    assert (np.abs(counts.sum(0) - exact.sum(0)) < 2).all()


@given(order=st.permutations(range(40)), seed=st.integers(0, 5))
def test_the_order_of_the_cells_does_not_matter(order: list[int], seed: int):
    cells = table([17, 1, 9, 13], seed=seed)
    shuffled = cells.iloc[order]
    again = split_cells(shuffled.index, shuffled["label"], seed=seed)
    assert list(again) == list(shuffled["part"])


def test_seed_and_fractions_decide():
    parts = [table([200, 200], seed=seed)["part"] for seed in (0, 0, 1)]
    assert parts[0].equals(parts[1])
    assert not parts[0].equals(parts[2])
    assert table([5, 6], (0.0, 0.0, 1.0))["part"].eq("test").all()


def test_labels_of_one_cell_are_for_training():
    cells = table([1] * 50 + [100])
    assert cells["part"].iloc[:50].eq("train").all()
    assert cells["part"].iloc[50:].value_counts().to_dict() == {"train": 80, "validation": 10, "test": 10}


def test_small_labels_share_validation_and_test_between_them():
    """Each has 4, 0.5 and 0.5 cells: rounded by itself, every label would give its fifth cell to the same part."""
    assert table([5] * 100)["part"].value_counts().to_dict() == {"train": 400, "validation": 50, "test": 50}


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0.5, 0.2, 0.2)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple):
    with pytest.raises(UserError, match="give three numbers of 0 or more whose sum is 1"):
        table([10], fractions)


def test_labels_may_be_categories_in_any_order():
    cells = table([30, 40, 50])
    categories = pd.Categorical(cells["label"], categories=["unused", "g2", "g0", "g1"])
    assert list(split_cells(cells.index, pd.Series(categories))) == list(cells["part"])
