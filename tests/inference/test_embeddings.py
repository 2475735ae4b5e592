from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from grndist.errors import UserError
from grndist.inference import Embeddings, embeddings_of_run, nearest, write_embeddings
from tests.inference.checkpoints import GENES, catran, catran_d, grn_vae, run_of

RNG = np.random.default_rng(0)
BOTH = Embeddings(
    "runs/d",
    ("STAT1", "STAT2", "JAK2", "Actb", "IRF1"),
    {"regulator": RNG.normal(size=(5, 3)), "target": RNG.normal(size=(5, 2))},
)


def test_the_embeddings_of_a_run_are_those_of_its_model(tmp_path: Path):
    model = catran()
    found = embeddings_of_run(run_of(tmp_path / "run", model))
    assert (found.genes, list(found.by_role)) == (tuple(GENES), ["embedding"])
    assert np.array_equal(found.by_role["embedding"], model.embedding.detach().numpy())
    directed = embeddings_of_run(run_of(tmp_path / "directed", catran_d())).by_role
    assert {role: values.shape for role, values in directed.items()} == {"regulator": (11, 4), "target": (11, 4)}


def test_a_model_without_embeddings_is_refused(tmp_path: Path):
    words = r"this model \(grn_vae\) has no gene embeddings; .* model\.kind=catran, .*\.form=bilinear or attention"
    with pytest.raises(UserError, match=words):
        embeddings_of_run(run_of(tmp_path, grn_vae()))


@pytest.mark.parametrize(
    ("ending", "read"),
    [
        ("parquet", pd.read_parquet),
        ("tsv", lambda path: pd.read_csv(path, sep="\t")),
        ("csv.gz", pd.read_csv),
    ],
)
def test_a_table_has_a_column_for_every_dimension(ending: str, read, tmp_path: Path):
    path = tmp_path / f"e.{ending}"
    write_embeddings(BOTH, path)
    table = read(path)
    assert list(table) == ["gene", "regulator_0", "regulator_1", "regulator_2", "target_0", "target_1"]
    assert tuple(table["gene"]) == BOTH.genes
    np.testing.assert_allclose(table.iloc[:, 1:], np.hstack(list(BOTH.by_role.values())), rtol=1e-12)
    with pytest.raises(UserError, match="exists already"):
        write_embeddings(BOTH, path)


def test_an_anndata_has_them_in_varm_ready_for_another_order_of_genes(tmp_path: Path):
    write_embeddings(BOTH, tmp_path / "e.h5ad")
    data = anndata.read_h5ad(tmp_path / "e.h5ad")
    assert (data.shape, tuple(data.var_names), set(data.varm)) == ((0, 5), BOTH.genes, {"regulator", "target"})
    mine = anndata.AnnData(np.zeros((2, 3)), var=pd.DataFrame(index=["JAK2", "STAT1", "IRF1"]))
    mine.varm["target"] = data[:, mine.var_names].varm["target"]
    assert np.array_equal(mine.varm["target"], BOTH.by_role["target"][[2, 0, 4]])


def test_another_ending_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(UserError, match=r"e\.xlsx: embeddings are written as a table .* or an AnnData \(\.h5ad\)"):
        write_embeddings(BOTH, tmp_path / "e.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("role", "used"), [(None, "regulator"), ("regulator", "regulator"), ("target", "target")])
def test_neighbours_are_those_with_the_largest_cosine(role: str | None, used: str):
    values = BOTH.by_role[used]
    cosine = 1 - cdist(values[[2]], values, "cosine")[0]
    order = [gene for gene in np.argsort(-cosine) if gene != 2]
    table = nearest(BOTH, "JAK2", 3, role)
    assert list(table["gene"]) == [BOTH.genes[gene] for gene in order[:3]]
    np.testing.assert_allclose(table["cosine"], cosine[order[:3]], rtol=1e-12)
    assert len(nearest(BOTH, "JAK2", 99, role)) == 4


def test_a_vector_of_zeros_is_near_to_nothing_and_ties_are_in_panel_order():
    values = np.array([[1.0, 0], [0, 0], [0, 2], [3, 0]])
    table = nearest(Embeddings("r", ("a", "b", "c", "d"), {"embedding": values}), "a", 3)
    assert table.to_numpy().tolist() == [["d", 1], ["b", 0], ["c", 0]]


@pytest.mark.parametrize(
    ("gene", "role", "words"),
    [
        ("stat3", None, r"runs/d: 'stat3' is not one of its 5 genes; did you mean 'STAT\d', 'STAT\d'\?"),
        ("actb", None, "did you mean 'Actb'"),
        ("ENSG000001", None, r"'ENSG000001' is not one of its 5 genes; they are like 'STAT1', 'STAT2'"),
        ("JAK2", "embedding", "no embedding of genes as 'embedding'; it has regulator, target: choose one"),
    ],
)
def test_a_gene_or_role_that_is_not_there_is_refused(gene: str, role: str | None, words: str):
    with pytest.raises(UserError, match=words):
        nearest(BOTH, gene, 3, role)
