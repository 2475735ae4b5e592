import contextlib
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from grndist.data.view import View
from grndist.evaluation.baselines import METHODS, baseline_edges
from grndist.networks.io import read_edges
from tests.test_cli import done, grndist


@pytest.fixture
def screen(view: View, tmp_path: Path):
    shutil.copytree(view.place, tmp_path / "s.zarr")
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_it_writes_the_networks_of_the_cells_and_genes_that_are_asked_for(screen: Path, view: View):
    (screen / "tf.txt").write_text("gene03\ngene07\n# of no other panel\ngene99\n")
    said = done("baseline correlation s.zarr cells.split=[train] -o e.tsv -k 20 --regulators tf.txt")
    assert "cells.split train" in said
    assert "e.tsv: 20 edges by correlation, signed" in said
    assert "next: grndist evaluate e.tsv" in said
    assert set(read_edges(screen / "e.tsv").table["regulator"]) == {"gene03", "gene07"}
    done("baseline blend s.zarr")
    found = read_edges(screen / "blend.parquet")
    pd.testing.assert_frame_equal(found.table, baseline_edges(view, "blend").table)
    assert found.signed


def test_what_was_done_before_is_removed_with_the_network_in_place(screen: Path):
    (screen / "tf.txt").write_text("gene03\ngene07\n")
    line = "baseline grnboost2 s.zarr genes.match=[gene0] --regulators tf.txt --processes 1 --seed 2"
    assert "without signs" in done(line)
    assert not Path("grnboost2.parquet.parts").exists()
    said = grndist(line)
    assert said.status == 2
    assert "grnboost2.parquet exists already" in said.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("baseline genie s.zarr", "there is no baseline 'genie'; choose one of"),
        ("baseline blend s.zarr cells.spilt=train", "did you mean 'cells.split'?"),
        ("baseline blend none.zarr", "none.zarr"),
        ("baseline blend s.zarr -o e.txt2", "the ending '.txt2' is not one of a table"),
        ("baseline genie3 s.zarr --processes 2 --address local", "--processes 2 is for this machine"),
        ("baseline blend s.zarr --regulators none.txt", "none.txt: no such file; --regulators is a text file"),
    ],
)
def test_mistakes_are_one_message(line: str, message: str, screen: Path):
    said = grndist(line)
    assert said.status == 2
    assert message in said.err


def test_the_help_names_every_method():
    said = re.sub(r"[\s│]+", " ", done("baseline --help"))
    assert f"{', '.join(METHODS[:-1])} or {METHODS[-1]}" in said
