"""Reading a count matrix as others publish it: h5ad, 10x (folder or h5), CSV and TSV.

`read_source` returns cells x genes with names, checked: every value finite and not negative, every name there and
unique. What the labels of the cells mean, and whether values are counts, `ingest` decides.
"""

from grndist.data.sources.read import read_source, source_digest
from grndist.data.sources.source import Source, SourceError, SourceOptions

__all__ = ["Source", "SourceError", "SourceOptions", "read_source", "source_digest"]
