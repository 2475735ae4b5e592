"""Any range of rows is that range of the whole matrix, in every kind of file and with buffers of a few entries."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from grndist.data.sources import Rows, SourceOptions
from tests.data.sources.files import (
    CELLS_IN_ROWS,
    GENES_IN_ROWS,
    folder_10x,
    h5_10x,
    h5ad,
    opened,
    text,
    zarr_folder,
)

RNG = np.random.default_rng(5)
COUNTS = RNG.poisson(0.8, (53, 7)).astype(np.float32) * RNG.integers(1, 90_000, (53, 7))
COUNTS[[0, 20, 21, 52]] = 0  # the first and last cell, and two neighbours
LIMITS = {
    "transposed.BUCKET": 200,
    "transposed.HELD": 90,
    "transposed.PIECE": 5,
    "matrices.ENTRIES": 11,
    "matrices.DENSE_BYTES": 300,
    "tenx.LINES": 13,
}
SHARDED, DENSE_SHARDED = {"chunks": (8,), "shards": (24,)}, {"chunks": (8, 3), "shards": (16, 6)}
KINDS: dict[str, Callable[[Path], Path | tuple[Path, SourceOptions]]] = {
    "h5ad CSR": lambda folder: h5ad(folder, COUNTS),
    "h5ad CSC": lambda folder: h5ad(folder, COUNTS, sparse.csc_matrix),
    "h5ad dense": lambda folder: h5ad(folder, COUNTS, np.asarray),
    "zarr 2 CSR": lambda folder: zarr_folder(folder, COUNTS, version=2, chunks=(16,)),
    "zarr 2 CSC": lambda folder: zarr_folder(folder, COUNTS, sparse.csc_matrix, version=2),
    "zarr 2 dense": lambda folder: zarr_folder(folder, COUNTS, np.asarray, version=2, chunks=(10, 4)),
    "zarr 3 CSR": lambda folder: zarr_folder(folder, COUNTS, **SHARDED),
    "zarr 3 CSC": lambda folder: zarr_folder(folder, COUNTS, sparse.csc_matrix, **SHARDED),
    "zarr 3 dense": lambda folder: zarr_folder(folder, COUNTS, np.asarray, **DENSE_SHARDED),
    "10x h5": lambda folder: h5_10x(folder, values=COUNTS),
    "10x folder": lambda folder: folder_10x(folder, COUNTS),
    "csv, cells in rows": lambda folder: (text(folder, pd.DataFrame(COUNTS).to_csv()), CELLS_IN_ROWS),
    "csv, genes in rows": lambda folder: (text(folder, pd.DataFrame(COUNTS.T).to_csv()), GENES_IN_ROWS),
}


@pytest.fixture(scope="module", params=KINDS)
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    made = KINDS[request.param](tmp_path_factory.mktemp("rows"))
    path, options = made if isinstance(made, tuple) else (made, SourceOptions())
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in LIMITS.items():
            patch.setattr(f"grndist.data.sources.{name}", limit)
        yield opened(path, options).rows


@settings(max_examples=25, deadline=None)
@given(bounds=st.tuples(st.integers(0, len(COUNTS)), st.integers(0, len(COUNTS))).map(sorted))
def test_any_range(rows: Rows, bounds: list[int]):
    part = rows.read(*bounds)
    assert np.array_equal(part.toarray(), COUNTS[slice(*bounds)])
    assert part.data.all()
    check = sparse.csr_matrix((part.data, part.indices, part.indptr), shape=part.shape)
    assert check.has_canonical_format
    assert isinstance(rows, Rows)


def test_rows_can_be_sent(rows: Rows):
    sent = pickle.loads(pickle.dumps(rows))
    assert np.array_equal(sent.read(3, 9).toarray(), COUNTS[3:9])
    assert sent.shape == COUNTS.shape
    assert sent.n_stored in (None, np.count_nonzero(COUNTS))
