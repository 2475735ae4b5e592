"""Reading count matrices as others publish them: h5ad, AnnData Zarr, 10x (folder or h5), CSV and TSV.

`open_source` gives names, and access to cells x genes by rows, so that a matrix is never held whole. Names are there
and unique; every value read is finite and not negative. What the labels of the cells mean, and whether values are
counts, `ingest` decides.
"""

from grndist.data.sources.open import check_within_reach, open_source, source_digest
from grndist.data.sources.source import Rows, Source, SourceError, SourceOptions, UnreadableError

__all__ = [
    "Rows",
    "Source",
    "SourceError",
    "SourceOptions",
    "UnreadableError",
    "check_within_reach",
    "open_source",
    "source_digest",
]
