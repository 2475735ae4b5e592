from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grndist.data.sources import SourceError, SourceOptions, source_digest
from tests.data.sources.files import CELLS, EXPECTED, assert_expected, opened, table

NO_OPTIONS = SourceOptions()


def folder(parent: Path) -> Path:
    """As BEELINE publishes a data set, for the cells and genes of the other formats."""
    path = parent / "mDC"
    path.mkdir()
    EXPECTED.T.to_csv(path / "ExpressionData.csv")
    times = {"PseudoTime1": [0.1, 0.2, 0.3, np.nan], "PseudoTime2": [np.nan, np.nan, 0.4, 0.5]}
    pd.DataFrame(times, CELLS).iloc[::-1].to_csv(path / "PseudoTime.csv", na_rep="NA")
    (path / "refNetwork.csv").write_text("Gene1,Gene2,Type\nSTAT1,IRF1,+\n")
    return path


def test_a_folder_of_beeline_is_read_with_its_pseudotime(tmp_path: Path):
    source = opened(folder(tmp_path), NO_OPTIONS)
    assert_expected(source)
    assert source.obs.loc[CELLS, "PseudoTime1"].tolist()[:3] == [0.1, 0.2, 0.3]
    assert source.obs["PseudoTime2"].isna().tolist() == [True, True, False, False]
    assert "BEELINE" in source.description


def test_it_needs_no_pseudotime(tmp_path: Path):
    path = folder(tmp_path)
    with_times = source_digest(path)
    (path / "PseudoTime.csv").unlink()
    source = opened(path, NO_OPTIONS)
    assert_expected(source)
    assert list(source.obs.columns) == []
    assert source_digest(path) != with_times


def test_what_rows_are_is_known(tmp_path: Path):
    with pytest.raises(SourceError, match="--genes-in-rows and --cells-in-rows are for CSV and TSV"):
        opened(folder(tmp_path), SourceOptions(orientation="cells_in_rows"))


def test_the_published_example_is_read(data_dir: Path):
    source = opened(data_dir / "beeline_GSD_example", NO_OPTIONS)
    expected = pd.read_csv(data_dir / "beeline_GSD_example" / "ExpressionData.csv", index_col=0)
    pd.testing.assert_frame_equal(table(source), expected.T, check_dtype=False)
    assert list(source.obs.columns) == ["PseudoTime1", "PseudoTime2"]
