"""The table of perturbations' summary statistics (Replogle et al. 2022, table S2), by which CausalBench filters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd
from pydantic import Field

from grndist.config import Config
from grndist.errors import UserError
from grndist.genes import some

PERTURBATION = "genetic perturbation"  # e.g. 3_GATA1_P1P2_ENSG00000102145: the symbol is its second part
LIMITS = {
    "Number of DEGs (anderson-darling)": lambda genes: genes > 50,
    "percent knockdown": lambda change: change <= -0.3,
    "number of cells (filtered)": lambda cells: cells > 25,
}


class SummaryTableConfig(Config):
    """Where the table is."""

    file: Path = Field(description="CSV, TSV or xlsx")
    sheet: str | None = Field(
        None, description="of an xlsx file, e.g. TabB_K562_day6_summary_stat; null: the first one"
    )


def strong_perturbations(config: SummaryTableConfig) -> list[str]:
    """Symbols of perturbations with more than 50 DEGs, 30 % knock-down or more, and more than 25 cells, row by row.

    A perturbation whose numbers are missing is not strong.

    Raises:
        UserError: the file cannot be read, or a column is missing or holds no numbers.
    """
    table = _read(config)
    missing = [name for name in (PERTURBATION, *LIMITS) if name not in table]
    if missing:
        raise UserError(
            f"{config.file}: the summary table has no column {some(missing, 4)}; it has {some(list(table.columns), 20)}"
            "; give the table of one cell line (xlsx: summary.sheet chooses it)"
        )
    for name, holds in LIMITS.items():
        table = table[holds(_numbers(config.file, table, name))]
    names = [str(name) for name in table[PERTURBATION]]
    odd = [name for name in names if "_" not in name]
    if odd:
        raise UserError(
            f"{config.file}: column {PERTURBATION!r} holds {some(odd)}; names like 3_GATA1_P1P2_ENSG00000102145 were "
            "expected, whose second part is the symbol"
        )
    return [name.split("_")[1] for name in names]


def _numbers(file: Path, table: pd.DataFrame, name: str) -> pd.Series:
    numbers = pd.to_numeric(table[name], errors="coerce")
    odd = table[name][numbers.isna() & table[name].notna()]
    if len(odd):
        raise UserError(f"{file}: column {name!r} holds {some(list(odd))}; numbers were expected")
    return numbers


def sheets_of(file: Path) -> list[str]:
    """The names of an xlsx file's sheets.

    Raises:
        UserError: it cannot be read.
    """
    with _readable(file), pd.ExcelFile(file) as book:
        return list(map(str, book.sheet_names))


def _read(config: SummaryTableConfig) -> pd.DataFrame:
    file = config.file
    with _readable(file):
        if file.suffix.lower() in (".xlsx", ".xls"):
            return pd.read_excel(file, sheet_name=config.sheet or 0)
        return pd.read_csv(file, sep="\t" if file.suffix.lower() in (".tsv", ".txt") else ",")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what the libraries raise on other files into one message."""
    try:
        yield
    except ImportError:
        raise UserError(
            f"{file}: openpyxl, which reads xlsx, is not installed; pip install openpyxl, or save the sheet as CSV"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; causalbench.summary.file is the table of summary statistics") from None
    except (OSError, ValueError, KeyError, UnicodeDecodeError, BadZipFile) as error:
        raise UserError(f"{file}: the summary table cannot be read ({error}); CSV, TSV or xlsx was expected") from None
