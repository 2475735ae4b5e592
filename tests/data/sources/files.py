"""The same four cells and three genes in every kind of file."""

import atexit
import gzip
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import zarr
from anndata.io import write_elem
from scipy import sparse

from grndist.data.sources import Source, SourceError, SourceOptions, open_source

CELLS = ["AAAC-1", "AAAG-1", "AAAT-1", "AACA-1"]
GENES = ["STAT1", "JAK2", "IRF1"]
VALUES = np.array([[5, 0, 1], [0, 2, 70000], [0, 0, 0], [3, 0, 4]], dtype=np.float32)
EXPECTED = pd.DataFrame(VALUES, CELLS, GENES)
GENES_IN_ROWS = SourceOptions(orientation="genes_in_rows")
CELLS_IN_ROWS = SourceOptions(orientation="cells_in_rows")


def annotated(values=VALUES, kind: Callable = sparse.csr_matrix) -> anndata.AnnData:
    if values.shape != VALUES.shape:
        return anndata.AnnData(kind(values))
    obs = pd.DataFrame({"batch": ["a", "a", "b", "b"]}, index=CELLS)
    var = pd.DataFrame({"symbol": ["s1", "s2", "s3"]}, index=GENES)
    return anndata.AnnData(kind(values), obs=obs, var=var)


def h5ad(folder: Path, values=VALUES, kind: Callable = sparse.csr_matrix) -> Path:
    annotated(values, kind).write_h5ad(folder / "data.h5ad")
    return folder / "data.h5ad"


def zarr_folder(
    folder: Path,
    values=VALUES,
    kind: Callable = sparse.csr_matrix,
    version: int = 3,
    layers: dict | None = None,
    **arrays: tuple[int, ...],
) -> Path:
    """`arrays` are the sizes of chunks and shards."""
    data, path = annotated(values, kind), folder / "data.zarr"
    with zarr.config.set({"array.write_empty_chunks": True}), anndata.settings.override(auto_shard_zarr_v3=False):
        root = zarr.open_group(path, mode="w", zarr_format=version)
        for name, element in (("obs", data.obs), ("var", data.var), ("layers", layers or {})):
            write_elem(root, name, element)
        write_elem(root, "X", data.X, dataset_kwargs=arrays)
    return path


def text(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def _names(values: np.ndarray, types: tuple[str, ...]) -> tuple[list[str], list[str], tuple[str, ...]]:
    if values.shape == VALUES.shape:
        return CELLS, GENES, types
    cells, genes = ([f"{letter}{n}" for n in range(length)] for letter, length in zip("cg", values.shape, strict=True))
    return cells, genes, ("Gene Expression",) * len(genes)


def folder_10x(
    folder: Path, values=VALUES, prefix: str = "", legacy: bool = False, types=("Gene Expression",) * 3
) -> Path:
    folder = folder / "tenx"
    folder.mkdir()
    cells, genes, types = _names(values, types)
    ids = [f"ENSG{number}" for number in range(len(genes))]
    rows = zip(ids, genes, types, strict=True)
    features = "".join("\t".join(row[:2] if legacy else row) + "\n" for row in rows)
    end = "" if legacy else ".gz"
    scipy.io.mmwrite(folder / "plain.mtx", sparse.coo_matrix(values.T.astype(int)))
    text(folder, (folder / "plain.mtx").read_bytes(), f"{prefix}matrix.mtx{end}")
    (folder / "plain.mtx").unlink()
    text(folder, features, f"{prefix}{'genes' if legacy else 'features'}.tsv{end}")
    text(folder, "\n".join(cells) + "\n", f"{prefix}barcodes.tsv{end}")
    return folder


def h5_10x(folder: Path, legacy: bool = False, values=VALUES, types=("Gene Expression",) * 3) -> Path:
    matrix = sparse.csr_matrix(values.astype(np.int32))
    cells, genes, types = _names(values, types)
    ids = [f"ENSG{number}" for number in range(len(genes))]
    with h5py.File(folder / "data.h5", "w") as file:
        group = file.create_group("GRCh38" if legacy else "matrix")
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape[::-1]}
        for name, value in parts.items():
            group[name] = value
        group["barcodes"] = np.array(cells, dtype="S")
        names = (
            {"genes": ids, "gene_names": genes}
            if legacy
            else {
                "features/id": ids,
                "features/name": genes,
                "features/feature_type": types,
                "features/genome": ["GRCh38"] * len(genes),
            }
        )
        for name, value in names.items():
            group[name] = np.array(value, dtype="S")
    return folder / "data.h5"


def opened(path: Path, options: SourceOptions | None = None) -> Source:
    work = Path(tempfile.mkdtemp(prefix="grndist-test-"))
    atexit.register(shutil.rmtree, work, ignore_errors=True)  # rows are read from it as long as a test likes
    return open_source(path, options or SourceOptions(), work)


def whole(source: Source) -> sparse.csr_matrix:
    return source.rows.read(0, source.rows.shape[0])


def table(source: Source) -> pd.DataFrame:
    return pd.DataFrame(whole(source).toarray(), source.obs.index, source.var.index)


def assert_expected(source: Source) -> None:
    pd.testing.assert_frame_equal(table(source), EXPECTED, check_dtype=False)


def refused(path: Path, options: SourceOptions, *words: str) -> None:
    """At the opening, or at the reading of all rows."""
    with pytest.raises(SourceError) as caught:
        whole(opened(path, options))
    message = str(caught.value)
    assert str(path) in message or options.cells_table is not None
    for word in words:
        assert word in message
