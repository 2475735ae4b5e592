import os
from pathlib import Path

import pytest

from grndist import machine


def test_some_memory_is_available():
    assert 2**20 < machine.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(("limit", "expected"), [("5000000\n", 4_300_000), ("1000\n", 0), ("max\n", None)])
def test_a_control_group_leaves_what_is_below_its_limit(
    limit: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000\ninactive_file 300000\n")
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    found = machine.available_memory()
    assert found == expected if expected is not None else found > 2**20
