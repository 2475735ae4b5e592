"""A small source with labels of every kind, brought into a store."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from grndist.data.ingest import IngestConfig, IngestReport, ingest
from grndist.data.sources import SourceError
from grndist.data.store import Store, open_store

GENES = ["STAT1", "JAK2", "IRF1", "CTRL1"]
LABELS = ["ctrl", "STAT1", "JAK2", "MYC", "STAT1+JAK2", "IRF1+ctrl", "ctrl", "JAK2"]


def counts(n_cells: int = len(LABELS)) -> np.ndarray:
    return np.random.default_rng(0).poisson(2, (n_cells, len(GENES))).astype(np.float32)


def h5ad(folder: Path, values: np.ndarray | None = None, name: str = "d.h5ad", **columns: list) -> Path:
    values = counts() if values is None else values
    obs = pd.DataFrame(columns, index=[f"c{number}" for number in range(len(values))])
    anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(folder / name)
    return folder / name


def ingested(source: Path, **options) -> tuple[IngestReport, Store]:
    store = source.parent / "out.zarr"
    report = ingest(source, store, IngestConfig(**options), overwrite=True)
    return report, open_store(store)


def said(report: IngestReport, words: str) -> bool:
    return any(words in line for line in report.lines)


def refused(source: Path, *words: str, **options) -> None:
    store = source.parent / "out.zarr"
    with pytest.raises(SourceError) as caught:
        ingest(source, store, IngestConfig(**options))
    assert str(source) in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert [file.name for file in source.parent.iterdir() if ".zarr" in file.name] == []


def labels_by_cell(store: Store) -> dict[str, str]:
    return store.obs["perturbation"].astype(str).to_dict()


def values_by_cell(store: Store) -> pd.DataFrame:
    rows = store.read_rows(0, store.n_cells).toarray()
    return pd.DataFrame(rows, store.obs.index, store.panel.names).sort_index()
