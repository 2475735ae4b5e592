import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from grndist.data.ingest import IngestConfig, IngestReport, ingest_files
from grndist.data.ingest.combine import file_names
from grndist.data.ingest.schedule import inline
from grndist.data.sources import SourceError, source_digest
from grndist.data.store import Store, open_store
from tests.data.ingest.building import small_pieces
from tests.data.ingest.ingesting import said, values_by_cell

__all__ = ["small_pieces"]


def written(
    folder: Path, name: str, cells: list[str], genes: list[str], scale: float = 1, **columns: list
) -> pd.DataFrame:
    rng = np.random.default_rng(len(name))
    values = (rng.poisson(2, (len(cells), len(genes))) * scale).astype(np.float32)
    obs = pd.DataFrame(columns, index=cells)
    anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(folder / name)
    return pd.DataFrame(values, cells, genes)


def together(folder: Path, *names: str, **options) -> tuple[IngestReport, Store]:
    store = folder / "out.zarr"
    report = ingest_files([folder / name for name in names], store, IngestConfig(**options), True, run=inline)
    return report, open_store(store)


CELLS_A, CELLS_B = [f"a{i}" for i in range(30)], [f"b{i}" for i in range(20)]


def test_the_genes_of_both_files(tmp_path: Path, small_pieces: None):
    one = written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2", "g3", "g4"])
    other = written(tmp_path, "bb.h5ad", CELLS_B, ["g5", "g4", "g2"])
    report, store = together(tmp_path, "a.h5ad", "bb.h5ad")
    assert store.panel.names == ("g2", "g4")
    expected = pd.concat([one, other], join="inner")[["g2", "g4"]].sort_index()
    assert np.array_equal(values_by_cell(store), expected)
    assert said(report, "file: bb.h5ad (h5ad, X), 3 genes; 1 that are not in every file are left out: 'g5'")
    assert said(report, "genes: 2 in every file (intersection)")
    assert np.array_equal(store.totals, expected.sum(axis=1)[store.obs.index])


def test_the_genes_of_any_file(tmp_path: Path, small_pieces: None):
    one = written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"])
    other = written(tmp_path, "bb.h5ad", CELLS_B, ["g5", "g2", "g0"])
    report, store = together(tmp_path, "a.h5ad", "bb.h5ad", genes="union")
    assert store.panel.names == ("g1", "g2", "g5", "g0")
    expected = pd.concat([one, other]).fillna(0)[["g1", "g2", "g5", "g0"]].sort_index()
    assert np.array_equal(values_by_cell(store), expected)
    assert said(report, "2 it does not have are zero in its cells: 'g5', 'g0'")


def test_cells_keep_their_columns_and_say_where_they_come_from(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"], gene=["ctrl", "g1"] * 15, batch=[1] * 30)
    written(tmp_path, "bb.h5ad", CELLS_B, ["g1", "g2"], gene=["g2"] * 20, plate=["p"] * 20)
    report, store = together(tmp_path, "a.h5ad", "bb.h5ad", where="gene != 'g1'")
    obs = store.obs.loc[[name for name in [*CELLS_A, *CELLS_B] if name in store.obs.index]]
    assert obs["source_file"].astype(str).tolist() == ["a.h5ad"] * 15 + ["bb.h5ad"] * 20
    assert obs["perturbation"].astype(str).tolist() == ["non-targeting"] * 15 + ["g2"] * 20
    assert obs["batch"].isna().tolist() == obs["plate"].notna().tolist() == [False] * 15 + [True] * 20
    assert (report.n_cells, report.n_controls, report.perturbed_genes) == (35, 15, ("g2",))
    assert sorted(obs["source_row"]) == list(range(35))


def test_the_record_has_a_digest_of_all_files(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"])
    written(tmp_path, "bb.h5ad", CELLS_B, ["g1", "g2"])
    _, store = together(tmp_path, "a.h5ad", "bb.h5ad")
    record = json.loads(store.description["source"])
    assert record["file"] == "a.h5ad, bb.h5ad"
    assert record["sha256"] not in (source_digest(tmp_path / name) for name in ("a.h5ad", "bb.h5ad"))


def test_the_order_of_files_is_the_order_of_cells(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"])
    written(tmp_path, "bb.h5ad", CELLS_B, ["g2", "g1"])
    _, store = together(tmp_path, "bb.h5ad", "a.h5ad")
    by_row = store.obs.sort_values("source_row").index.tolist()
    assert by_row == [*CELLS_B, *CELLS_A]


def test_cells_of_one_name(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"])
    written(tmp_path, "bb.h5ad", ["x", "a3", "a5"], ["g1", "g2"])
    with pytest.raises(
        SourceError, match=r"2 cell names are in several files.*'a3', 'a5'.*a\.h5ad and bb\.h5ad.*--pre"
    ):
        together(tmp_path, "a.h5ad", "bb.h5ad")
    assert not any(".zarr" in file.name for file in tmp_path.iterdir())
    _, store = together(tmp_path, "a.h5ad", "bb.h5ad", prefix_cells=True)
    assert {"a:a3", "bb:a3", "bb:x"} < set(store.obs.index)


def test_files_without_a_common_gene(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["TP53", "MYC"])
    written(tmp_path, "bb.h5ad", CELLS_B, ["ENSG01", "ENSG02"])
    for genes in ("intersection", "union"):
        with pytest.raises(SourceError, match=r"bb\.h5ad has no gene in common with a\.h5ad.*'ENSG01'.*'TP53'.*--gene"):
            together(tmp_path, "a.h5ad", "bb.h5ad", genes=genes)


def test_files_of_different_kinds_of_values(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"])
    written(tmp_path, "bb.h5ad", CELLS_B, ["g1", "g2"], scale=0.3)
    with pytest.raises(SourceError, match=r"a\.h5ad: counts, because .*; bb\.h5ad: log1p, because .*pass --state"):
        together(tmp_path, "a.h5ad", "bb.h5ad")
    report, _ = together(tmp_path, "a.h5ad", "bb.h5ad", state="continuous")
    assert report.state == "continuous"


def test_a_file_given_twice(tmp_path: Path):
    written(tmp_path, "a.h5ad", CELLS_A, ["g1", "g2"])
    with pytest.raises(SourceError, match=r"a\.h5ad is given twice"):
        together(tmp_path, "a.h5ad", "a.h5ad")


def test_files_are_told_apart_by_their_folders():
    assert file_names([Path("/x/a/f.h5ad"), Path("/x/b/f.h5ad")]) == ("a/f.h5ad", "b/f.h5ad")
    assert file_names([Path("/x/a/f.h5ad"), Path("/x/b/g.h5ad")]) == ("f.h5ad", "g.h5ad")
