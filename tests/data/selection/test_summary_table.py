from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

from grndist.data.selection.summary_table import SummaryTableConfig, strong_perturbations
from grndist.errors import UserError
from tests.data.selection.selecting import summary_table


def refused(file: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        strong_perturbations(SummaryTableConfig(file=file))
    assert str(file) in str(caught.value)


def test_strong_perturbations_pass_all_three_limits(tmp_path: Path):
    assert strong_perturbations(SummaryTableConfig(file=summary_table(tmp_path))) == ["S3", "S0", "S7", "S30"]


def test_tsv_is_read_as_well(tmp_path: Path):
    pd.read_csv(summary_table(tmp_path)).to_csv(tmp_path / "summary.tsv", sep="\t")
    assert strong_perturbations(SummaryTableConfig(file=tmp_path / "summary.tsv")) == ["S3", "S0", "S7", "S30"]


def test_a_sheet_of_xlsx_is_read_where_openpyxl_is(tmp_path: Path):
    pytest.importorskip("openpyxl")
    with pd.ExcelWriter(tmp_path / "s.xlsx") as book:
        pd.DataFrame({"of": ["no use"]}).to_excel(book, sheet_name="first")
        pd.read_csv(summary_table(tmp_path)).to_excel(book, sheet_name="K562")
    found = strong_perturbations(SummaryTableConfig(file=tmp_path / "s.xlsx", sheet="K562"))
    assert found == ["S3", "S0", "S7", "S30"]
    refused(tmp_path / "s.xlsx", "has no column 'genetic perturbation'.*summary.sheet chooses it")
    with pytest.raises(UserError, match="cannot be read"):
        strong_perturbations(SummaryTableConfig(file=tmp_path / "s.xlsx", sheet="none"))


def test_without_openpyxl_the_remedy_is_said(tmp_path: Path):
    if find_spec("openpyxl") is not None:
        pytest.skip("openpyxl is installed")
    with ZipFile(tmp_path / "s.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "")
    refused(tmp_path / "s.xlsx", "pip install openpyxl, or save the sheet as CSV")


def test_what_is_no_such_table_is_refused(tmp_path: Path):
    refused(tmp_path / "none.csv", "no such file")
    (tmp_path / "empty.csv").write_text("")
    refused(tmp_path / "empty.csv", "cannot be read")
    (tmp_path / "broken.xlsx").write_bytes(b"PK")
    refused(tmp_path / "broken.xlsx", "cannot be read")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    refused(tmp_path / "other.csv", "has no column 'genetic perturbation', 'Number of DEGs .*; it has 'a', 'b'")
    refused(summary_table(tmp_path, **{"percent knockdown": ["low"] * 7}), "'percent knockdown' holds 'low'.*numbers")
    refused(summary_table(tmp_path, **{"genetic perturbation": ["GATA1"] * 7}), "holds 'GATA1'.*second part")
