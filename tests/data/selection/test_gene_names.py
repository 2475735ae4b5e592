from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from grndist.data.selection.gene_names import Pattern, listed, matching, read_gene_list
from grndist.data.view import SelectionError

NAMES = ["MT-CO1", "RPL3", "RPS6", "RPTOR", "AMT-1", "JAK2"]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["^MT-"], ["MT-CO1"]),
        (["^RP[LS]", "^MT-"], ["MT-CO1", "RPL3", "RPS6"]),
        (["MT-"], ["MT-CO1", "AMT-1"]),
        (["^nothing$"], []),
        ([], []),
    ],
)
def test_patterns_are_searched_for(patterns: list[str], found: list[str]):
    assert [NAMES[at] for at in np.flatnonzero(matching(NAMES, patterns))] == found


def test_a_pattern_must_compile():
    with pytest.raises(ValidationError, match=r"'\^MT\(' is no regular expression .*; an example: '\^MT-'"):
        TypeAdapter(Pattern).validate_python("^MT(")


def test_a_list_has_one_gene_a_line(tmp_path: Path):
    file = tmp_path / "genes.txt"
    file.write_text("# factors\nJAK2\n\n  RPL3 \r\nJAK2\n")
    assert read_gene_list(file, "genes.keep") == ["JAK2", "RPL3"]
    chosen, unknown = listed(NAMES, file, "genes.keep", "s.zarr")
    assert chosen.tolist() == [False, True, False, False, False, True]
    assert unknown == []


def test_unknown_names_are_counted_and_named(tmp_path: Path):
    file = tmp_path / "genes.txt"
    file.write_text("JAK2\nX1\nX2\nX3\nX4\nRPL3")
    _, unknown = listed(NAMES, file, "genes.keep", "s.zarr", [*NAMES, "X4"])
    assert unknown == [f"genes: 3 of 6 names in {file} are not there: 'X1', 'X2', 'X3'"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"jak2\nrpl3\n", "none of its 2 genes .*'jak2', 'rpl3'.* is in s.zarr, whose genes are like 'MT-CO1'"),
        (b"# nothing\n\n", "names no gene; genes.keep is a text file with one gene a line"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "genes.txt").write_bytes(content)
    with pytest.raises(SelectionError, match=words):
        listed(NAMES, tmp_path / "genes.txt", "genes.keep", "s.zarr")


def test_a_list_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(SelectionError, match=r"no such file; genes\.keep is"):
        read_gene_list(tmp_path / "none.txt", "genes.keep")
    with pytest.raises(SelectionError, match="cannot be read"):
        read_gene_list(tmp_path, "genes.keep")
