"""From sources to a store, in bounded memory and able to go on after a kill.

`run` is the whole of it. Sources are put together (`combine`, `prepare`, `labels`), read once into spill files sorted
by the cells' places in the store (`spill`), gathered shard by shard (`assemble`, `finish`), put in place (`commit`).
"""

from grndist.data.ingest.prepare import IngestConfig
from grndist.data.ingest.report import IngestReport
from grndist.data.ingest.run import ingest, ingest_files

__all__ = ["IngestConfig", "IngestReport", "ingest", "ingest_files"]
