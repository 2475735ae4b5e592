from pathlib import Path

from grndist.data.sources import SourceOptions
from tests.data.sources.files import folder_10x, h5ad, opened, refused, text


def test_the_table_of_cells_is_joined_by_name(tmp_path: Path):
    cells = text(
        tmp_path, "cell,perturbation,umi\nAACA-1,JAK2,7\nAAAC-1,ctrl,9\nAAAG-1,STAT1,3\nother,IRF1,1\n", "c.csv"
    )
    source = opened(folder_10x(tmp_path), SourceOptions(cells_table=cells))
    assert source.obs["perturbation"].tolist()[:2] == ["ctrl", "STAT1"]
    assert source.obs["umi"].isna().tolist() == [False, False, True, False]
    assert source.description == "10x folder; 3 of 4 cells are in c.csv"


def test_cells_called_by_numbers_keep_their_zeros(tmp_path: Path):
    path = text(tmp_path, "cell,A\n007,1\n8,2\n")
    cells = text(tmp_path, "batch\n8\ty\n007\tx\n", "c.tsv")
    source = opened(path, SourceOptions(orientation="cells_in_rows", cells_table=cells))
    assert source.obs["batch"].to_dict() == {"007": "x", "8": "y"}


def test_tables_of_cells_that_do_not_fit(tmp_path: Path):
    path = h5ad(tmp_path)

    def with_table(content: str | None) -> SourceOptions:
        return SourceOptions(
            cells_table=tmp_path / "none.csv" if content is None else text(tmp_path, content, "cells.csv")
        )

    refused(path, with_table(None), "none.csv: no such file", "--cells-table")
    refused(path, with_table("cell,x\nother,1\n"), "'other'", "names no cell of the matrix", "'AAAC-1'")
    refused(path, with_table("cell,x\nAAAC-1,1\nAAAC-1,2\n"), "not unique", "'AAAC-1'")
    refused(path, with_table("cell,batch\nAAAC-1,1\n"), "columns 'batch' already")
    refused(path, with_table("cell,a/b\nAAAC-1,1\n"), "columns called 'a/b'", "rename")
    refused(path, with_table(""), "not readable as table of cells")
    refused(path, with_table("cell,x\nAAAC-1,1,2,3\na,b\nc,d,e,f,g\n"), "table of cells")
