"""The same four cells and three genes in every kind of file."""

import gzip
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from grndist.data.sources import SourceError, SourceOptions, read_source

CELLS = ["AAAC-1", "AAAG-1", "AAAT-1", "AACA-1"]
GENES = ["STAT1", "JAK2", "IRF1"]
VALUES = np.array([[5, 0, 1], [0, 2, 70000], [0, 0, 0], [3, 0, 4]], dtype=np.float32)
EXPECTED = pd.DataFrame(VALUES, CELLS, GENES)
GENES_IN_ROWS = SourceOptions(orientation="genes_in_rows")
CELLS_IN_ROWS = SourceOptions(orientation="cells_in_rows")


def annotated(values=VALUES, kind: Callable = sparse.csr_matrix) -> anndata.AnnData:
    obs = pd.DataFrame({"batch": ["a", "a", "b", "b"]}, index=CELLS)
    var = pd.DataFrame({"symbol": ["s1", "s2", "s3"]}, index=GENES)
    return anndata.AnnData(kind(values), obs=obs, var=var)


def h5ad(folder: Path, values=VALUES, kind: Callable = sparse.csr_matrix) -> Path:
    annotated(values, kind).write_h5ad(folder / "data.h5ad")
    return folder / "data.h5ad"


def text(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def folder_10x(
    folder: Path, values=VALUES, prefix: str = "", legacy: bool = False, types=("Gene Expression",) * 3
) -> Path:
    folder = folder / "tenx"
    folder.mkdir()
    ids = [f"ENSG{number}" for number in range(values.shape[1])]
    rows = zip(ids, GENES, types, strict=True)
    features = "".join("\t".join(row[:2] if legacy else row) + "\n" for row in rows)
    end = "" if legacy else ".gz"
    scipy.io.mmwrite(folder / "plain.mtx", sparse.coo_matrix(values.T.astype(int)))
    text(folder, (folder / "plain.mtx").read_bytes(), f"{prefix}matrix.mtx{end}")
    (folder / "plain.mtx").unlink()
    text(folder, features, f"{prefix}{'genes' if legacy else 'features'}.tsv{end}")
    text(folder, "\n".join(CELLS) + "\n", f"{prefix}barcodes.tsv{end}")
    return folder


def h5_10x(folder: Path, legacy: bool = False) -> Path:
    matrix = sparse.csr_matrix(VALUES.astype(np.int32))
    ids = [f"ENSG{number}" for number in range(len(GENES))]
    with h5py.File(folder / "data.h5", "w") as file:
        group = file.create_group("GRCh38" if legacy else "matrix")
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape[::-1]}
        for name, value in parts.items():
            group[name] = value
        group["barcodes"] = np.array(CELLS, dtype="S")
        names = (
            {"genes": ids, "gene_names": GENES}
            if legacy
            else {
                "features/id": ids,
                "features/name": GENES,
                "features/feature_type": ["Gene Expression", "Gene Expression", "Gene Expression"],
                "features/genome": ["GRCh38"] * 3,
            }
        )
        for name, value in names.items():
            group[name] = np.array(value, dtype="S")
    return folder / "data.h5"


def table(source) -> pd.DataFrame:
    return pd.DataFrame(source.matrix.toarray(), source.obs.index, source.var.index)


def assert_expected(source) -> None:
    pd.testing.assert_frame_equal(table(source), EXPECTED, check_dtype=False)


def refused(path: Path, options: SourceOptions, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_source(path, options)
    message = str(caught.value)
    assert str(path) in message or options.cells_table is not None
    for word in words:
        assert word in message
