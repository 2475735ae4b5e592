import pickle
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from grndist.data.sources import SourceError, SourceOptions
from tests.data.sources.files import (
    CELLS_IN_ROWS,
    GENES,
    VALUES,
    annotated,
    folder_10x,
    h5ad,
    opened,
    refused,
    table,
    text,
    whole,
)


def test_explicit_zeros_and_repeated_entries_are_merged(tmp_path: Path):
    matrix = sparse.csr_matrix(([1.0, 4.0, 0.0, 2.0], [0, 0, 2, 1], [0, 3, 4, 4, 4]), shape=(4, 3))
    data = annotated()
    data.X = matrix
    data.write_h5ad(tmp_path / "d.h5ad")
    source = opened(tmp_path / "d.h5ad", SourceOptions())
    assert table(source).to_numpy().tolist() == [[5, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert whole(source).nnz == 2


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_repeated_entries_are_summed_without_overflow(tmp_path: Path, kind: Callable, dtype: type):
    largest = 2**24 if dtype == np.float32 else int(np.iinfo(dtype).max)
    matrix = kind(
        (np.array([largest, 1, 1, 3], dtype), [0, 0, 0, 0], [0, 3, *[4] * (3 if kind is sparse.csr_matrix else 2)]),
        shape=(4, 3),
    )
    data = annotated()
    data.X = matrix
    data.write_h5ad(tmp_path / "d.h5ad")
    values = table(opened(tmp_path / "d.h5ad")).to_numpy()
    assert values[0, 0] == largest + 2
    assert values.sum() == largest + 5


def test_columns_in_any_order_keep_their_type(tmp_path: Path):
    data = annotated()
    data.X = sparse.csr_matrix((np.array([7, 8], np.uint8), [2, 0], [0, 2, 2, 2, 2]), shape=(4, 3))
    data.write_h5ad(tmp_path / "d.h5ad")
    values = whole(opened(tmp_path / "d.h5ad"))
    assert values.dtype == np.uint8
    assert values.toarray()[0].tolist() == [8, 0, 7]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_what_float32_rounds_to_zero_is_zero(tmp_path: Path, kind: Callable):
    tiny = [1e-60, 2.0**-150, np.nextafter(2.0**-150, 1), 2.0**-149]
    values = np.array([tiny, [1.0, 0.5, 0, 0]])
    kept = whole(opened(h5ad(tmp_path, values, kind)))
    assert kept.nnz == np.count_nonzero(values.astype(np.float32)) == 4
    assert np.array_equal(kept.toarray().astype(np.float32), values.astype(np.float32))


def test_another_column_gives_the_gene_names(tmp_path: Path):
    source = opened(h5ad(tmp_path), SourceOptions(gene_column="symbol"))
    assert list(source.var.index) == ["s1", "s2", "s3"]
    assert list(source.var["source_index"]) == GENES


def test_genes_of_one_name_are_told_apart_as_scanpy_does(tmp_path: Path):
    path = text(tmp_path, "cell,A,B,A,A\nc1,1,2,3,4\n")
    assert list(opened(path, SourceOptions(orientation="cells_in_rows", make_genes_unique=True)).var.index) == [
        "A",
        "B",
        "A-1",
        "A-2",
    ]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, np.asarray])
def test_no_cells_or_no_genes(tmp_path: Path, shape: tuple[int, int], kind: Callable):
    anndata.AnnData(kind(np.zeros(shape, dtype=np.float32))).write_h5ad(tmp_path / "d.h5ad")
    refused(tmp_path / "d.h5ad", SourceOptions(), "is empty", f"{shape[0]} cells, {shape[1]} genes")


def test_only_zeros_are_no_mistake_of_the_file(tmp_path: Path):
    assert whole(opened(h5ad(tmp_path, VALUES * 0))).nnz == 0


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-1.5, "-1.5"), (-np.inf, "-inf")])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_values_that_are_missing_infinite_or_negative(tmp_path: Path, kind: Callable, value: float, shown: str):
    values = VALUES.copy()
    values[3, 1] = value
    refused(
        h5ad(tmp_path, values, kind),
        SourceOptions(),
        f"gene 'JAK2' in cell 'AACA-1' is {shown} (1 such values among cells 0 to 3)",
        "--layer",
    )


def test_values_are_counted_among_the_cells_that_were_read(tmp_path: Path):
    values = np.ones((9, 2), dtype=np.float32)
    values[[4, 6, 8], [1, 0, 0]] = np.nan
    rows = opened(h5ad(tmp_path, values)).rows
    assert rows.read(0, 4).nnz == 8
    with pytest.raises(SourceError, match=r"gene '1' in cell '4' is nan \(2 such values among cells 3 to 6\)"):
        rows.read(3, 7)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 5)])
def test_rows_that_do_not_exist(tmp_path: Path, start: int, stop: int):
    with pytest.raises(IndexError, match="of 4 cells"):
        opened(h5ad(tmp_path)).rows.read(start, stop)


def test_rows_are_small_when_sent_whatever_the_number_of_names(tmp_path: Path):
    values = np.ones((3000, 2), dtype=np.float32)
    assert len(pickle.dumps(opened(h5ad(tmp_path, values)).rows)) < 2000


def test_a_value_beyond_float32_counts_as_infinite(tmp_path: Path):
    refused(text(tmp_path, "cell,A\nc,1e300\n"), CELLS_IN_ROWS, "gene 'A' in cell 'c' is 1e+300")


def test_cell_names_twice_or_missing(tmp_path: Path):
    path = text(tmp_path, "cell,A\n" + "".join(f"c{n % 4},1\n" for n in range(8)))
    refused(path, CELLS_IN_ROWS, "4 cell names are not unique", "'c0', 'c1', 'c2', ...")
    refused(text(tmp_path, "cell,A\nc1,1\n,2\n"), CELLS_IN_ROWS, "1 cells have no name (number 2)")
    data = annotated()
    data.obs_names = ["a", "a", "b", "b"]
    data.write_h5ad(tmp_path / "d.h5ad")
    refused(tmp_path / "d.h5ad", SourceOptions(), "2 cell names are not unique", "'a', 'b'")


def test_gene_names_twice(tmp_path: Path):
    path = text(tmp_path, "cell,A,B,A\nc1,1,2,3\n")
    refused(path, CELLS_IN_ROWS, "1 gene names are not unique", "'A'", "--gene-column", "--make-genes-unique")


def test_duplicated_symbols_of_a_10x_folder_offer_the_identifiers(tmp_path: Path):
    path = folder_10x(tmp_path)
    text(path, "".join(f"E{n}\tDUP\tGene Expression\n" for n in range(3)), "features.tsv.gz")
    refused(path, SourceOptions(), "'DUP'", "--gene-column", "'gene_ids'")
    assert list(opened(path, SourceOptions(gene_column="gene_ids")).var.index) == ["E0", "E1", "E2"]


def test_gene_names_missing(tmp_path: Path):
    refused(text(tmp_path, "cell,A,,nan\nc1,1,2,3\n"), CELLS_IN_ROWS, "2 genes have no name (number 2, 3)")
    data = annotated()
    data.var["symbol"] = pd.Categorical(["a", None, "c"])
    data.write_h5ad(tmp_path / "d.h5ad")
    refused(
        tmp_path / "d.h5ad", SourceOptions(gene_column="symbol"), "1 genes have no name (number 2)", "--gene-column"
    )


def test_absent_gene_column_names_those_there_are(tmp_path: Path):
    refused(h5ad(tmp_path), SourceOptions(gene_column="gene"), "no column 'gene'", "'symbol'", "--gene-column")
