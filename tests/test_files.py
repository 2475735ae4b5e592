from pathlib import Path

import pytest

from grndist import files
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


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_where_two_cannot_change_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "store"
    for content in ("old", "new"):
        with written_aside(path, overwrite=True) as aside:
            aside.mkdir()
            (aside / "inside").write_text(content)
    assert (path / "inside").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_two_directories_change_places(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two names")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
