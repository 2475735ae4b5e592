"""Stores built in small pieces, and ingests in processes of their own that can be killed."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from grndist.data.ingest import IngestConfig, build
from grndist.data.ingest import run as ingest

SMALL = {"CHUNK": 64, "SHARD": 512, "DENSE_SHARD": 2**11, "ROWS_PER_CHUNK": 8}
VALUES_PER_PART = 400

DRIVER = """
import sys
from pathlib import Path
from grndist.data.ingest import build
from grndist.data.ingest import run as ingest
from grndist.errors import UserError
for name, value in {small!r}.items():
    setattr(build, name, value)
ingest.VALUES_PER_PART = {part}
try:
    sources = [Path(source) for source in {sources!r}]
    report = ingest.ingest_files(sources, {store!r}, ingest.IngestConfig(**{options!r}), {overwrite!r})
except UserError as error:
    sys.exit(str(error))
print(report.digest)
"""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ten parts and shards for a few hundred cells."""
    for name, value in SMALL.items():
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(ingest, "VALUES_PER_PART", VALUES_PER_PART)


def started(
    sources: Sequence[Path], store: Path, config: IngestConfig, overwrite: bool = False, setup: str = ""
) -> subprocess.Popen:
    """An ingest in small pieces in a process of its own; prints the digest. `setup` is run before it."""
    options = config.model_dump(exclude_defaults=True)
    program = setup + DRIVER.format(
        small=SMALL,
        part=VALUES_PER_PART,
        sources=[str(source) for source in sources],
        store=str(store),
        options=options,
        overwrite=overwrite,
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
