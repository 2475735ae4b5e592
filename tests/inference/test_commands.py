"""`grndist infer`, `embeddings` and `neighbours`, on a run that has only a checkpoint."""

from pathlib import Path

import pandas as pd
import pytest
import zarr

from tests.inference.checkpoints import catran, catran_d, grn_vae, run_of
from tests.test_cli import done, grndist


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(Path("vae"), grn_vae())
    run_of(Path("catran"), catran())
    run_of(Path("directed"), catran_d())
    Path("few.txt").write_text("g3\ng5\n")


def test_lists_and_scores_beside_the_edges():
    printed = done("infer vae --all --regulators few.txt --targets few.txt --scores all.zarr")
    assert "vae/edges.parquet: 2 edges, signed, strongest:" in printed
    assert "all.zarr: all scores, 2 regulators x 2 targets, 0.0 MiB" in printed
    edges = pd.read_parquet("vae/edges.parquet")
    scores = zarr.open_array("all.zarr/scores", mode="r")[:]
    assert set(edges["weight"]) == {float(scores[0, 1]), float(scores[1, 0])}


def test_embeddings_beside_the_run_and_elsewhere():
    assert "catran/embeddings.parquet: 11 genes, embedding of width 4" in done("embeddings catran")
    assert list(pd.read_parquet("catran/embeddings.parquet"))[:2] == ["gene", "embedding_0"]
    assert "e.h5ad: 11 genes, regulator of width 4, target of width 4" in done("embeddings directed -o e.h5ad")


def test_neighbours_are_printed_as_a_table():
    lines = done("neighbours directed g3 -n 4 --as target").splitlines()
    assert lines[0].split() == ["gene", "cosine"]
    assert len(lines) == 5
    assert "g3" not in [line.split()[0] for line in lines]
    assert lines != done("neighbours directed g3 -n 4").splitlines()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("infer vae --regulators vae/config.yaml", "config.yaml names no gene; --regulators is a text file"),
        ("infer vae --scores catran.zarr -k 999", "999 edges were asked for but the network has only 110"),
        ("infer vae --scores few.txt", "few.txt: scores are a Zarr group"),
        ("embeddings vae", "vae: this model (grn_vae) has no gene embeddings"),
        ("embeddings catran -o few.txt", "few.txt exists already; pass --overwrite"),
        ("embeddings catran -o new.xlsx", "new.xlsx: embeddings are written as a table"),
        ("embeddings nowhere", "nowhere is not a run directory"),
        ("neighbours catran G33", "'G33' is not one of its 11 genes; did you mean 'g3'"),
        ("neighbours catran g3 --as target", "no embedding of genes as 'target'; it has embedding"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(line: str, words: str):
    before = sorted(Path().rglob("*"))
    said = grndist(line)
    assert (said.status, said.out) == (2, "")
    assert words in said.err
    assert said.err.startswith("grndist: ")
    assert said.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
