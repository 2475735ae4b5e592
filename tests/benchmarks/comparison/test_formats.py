from pathlib import Path

import numpy as np
import pytest

from grndist.benchmarks.comparison.formats import store_of_gene_net_weaver, store_of_sergio
from grndist.data.store import open_store
from grndist.errors import UserError

TABLE = """"wt"	"G1(-/-)"	"G2(+/-)"	"TS_1"
"G1"	0.5	0	0.4	0.3
"G2"	0.25	0.75	0.125	0.2
"""


def test_conditions_are_perturbations_of_their_gene_and_time_series_are_left_out(tmp_path: Path):
    (tmp_path / "e.tsv").write_text(TABLE)
    store_of_gene_net_weaver(tmp_path / "e.tsv", tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    labels = store.obs["perturbation"].astype(str)
    assert labels.to_dict() == {"wt": "non-targeting", "G1(-/-)": "G1", "G2(+/-)": "G2"}
    values = dict(zip(labels, store.read_rows(0, 3).toarray().tolist(), strict=True))
    assert values == {"non-targeting": [0.5, 0.25], "G1": [0.0, 0.75], "G2": [0.4000000059604645, 0.125]}


def test_dream4_has_its_wild_type_and_two_conditions_a_gene(data_dir: Path, tmp_path: Path):
    store_of_gene_net_weaver(data_dir / "dream4_size100_1" / "expression.tsv", tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    sizes = store.obs["perturbation"].value_counts()
    assert sizes.pop("non-targeting") == 1
    assert sizes.to_dict() == dict.fromkeys(store.panel.names, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\tb\nG1\t1\t2\n", "no column is called wt"), ("wt\tb\nG1\tx\t2\n", "a tab-separated table of numbers")],
)
def test_another_table_is_refused(text: str, message: str, tmp_path: Path):
    (tmp_path / "e.tsv").write_text(text)
    with pytest.raises(UserError, match=message):
        store_of_gene_net_weaver(tmp_path / "e.tsv", tmp_path / "s.zarr")


def test_counts_are_drawn_around_the_levels_by_their_seed(tmp_path: Path):
    levels = np.random.default_rng(0).gamma(2.0, size=(400, 5)) * [1, 2, 3, 4, 0]
    np.savez(tmp_path / "l.npz", X=levels, gene_ids=np.arange(10, 15))
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        store_of_sergio(tmp_path / "l.npz", tmp_path / f"{name}.zarr", 60.0, seed)
        found.append(open_store(tmp_path / f"{name}.zarr"))
    assert found[0].panel.names == ("10", "11", "12", "13", "14")
    assert (found[0].digest == found[1].digest, found[0].digest == found[2].digest) == (True, False)
    counts = found[0].read_rows(0, 400).toarray()
    assert counts.sum(axis=1).mean() == pytest.approx(60, abs=4 * np.sqrt(60 / 400))
    assert counts[:, 4].max() == 0
    assert counts.mean(axis=0) == pytest.approx(60 * levels.mean(axis=0) / levels.sum(axis=1).mean(), rel=0.1)


def test_no_levels_is_one_message(tmp_path: Path):
    np.savez(tmp_path / "l.npz", Y=np.ones(3))
    with pytest.raises(UserError, match="an npz file with the arrays X and gene_ids was expected"):
        store_of_sergio(tmp_path / "l.npz", tmp_path / "s.zarr", 60.0, 0)
