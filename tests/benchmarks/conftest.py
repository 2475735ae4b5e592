"""The published files, made once."""

from pathlib import Path

import pytest

from tests.benchmarks.published import published


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K562_small.h5ad, beside K562_small.xlsx and K562_small.edges.tsv; to be copied, not changed."""
    return published(tmp_path_factory.mktemp("published"))
