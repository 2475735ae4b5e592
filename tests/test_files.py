from pathlib import Path

import pytest

from grndist.errors import UserError
from grndist.files import written_aside


def test_a_file_appears_whole(tmp_path: Path):
    with written_aside(tmp_path / "a.txt") as aside:
        aside.write_text("one")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path, kind: str):
    path = tmp_path / "old"
    if kind == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "inside").write_text("old")

    def fail() -> None:
        with written_aside(path, overwrite=True) as aside:
            aside.mkdir()
            (aside / "part").write_text("new")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    assert (path if kind == "file" else path / "inside").read_text() == "old"


def test_a_directory_is_replaced_only_when_asked(tmp_path: Path):
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(UserError, match="exists already; pass --overwrite"), written_aside(path):
        pass
    with written_aside(path, overwrite=True) as aside:
        aside.mkdir()
        (aside / "new").write_text("new")
    assert [file.name for file in path.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_missing_parent_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"), written_aside(tmp_path / "no" / "file"):
        pass
