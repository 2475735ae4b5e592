"""The data of the benchmark, as it is published: an h5ad of counts, and a table of summary statistics."""

from pathlib import Path

from grndist.benchmarks.causalbench.config import CasesError
from grndist.data.ingest import IngestConfig, ingest_files
from grndist.data.selection.summary_table import SummaryTableConfig, sheets_of
from grndist.data.sources import SourceOptions, source_digest
from grndist.data.sources.hdf5 import open_hdf5
from grndist.data.store import is_store, open_store
from grndist.genes import CONTROL_NAMES, bare, some

H5AD = ".h5ad"
GENE_ID = "gene_id"  # column of obs with Ensembl ids, as the genes are called (Replogle et al. 2022)
SHEETS = {"k562": "TabB_K562_day6_summary_stat", "rpe1": "TabC_RPE1_summary_statistic"}  # of table S2
EXCEL = (".xlsx", ".xls")


def store_of(where: str) -> tuple[str, list[str]]:
    """The store itself, or that of an h5ad beside it, made if it is not there; and what to say of it.

    An ingest that was killed goes on.

    Raises:
        CasesError: what is beside the h5ad is another file's store.
        UserError: there is no such store, or the file cannot be ingested.
    """
    path = Path(where)
    if not where.endswith(H5AD):
        open_store(where)
        return where, []
    if not path.is_file():
        raise CasesError(f"{where}: no such file; give an h5ad of counts, or a store that `grndist ingest` made")
    store = path.with_suffix(".zarr")
    if store.exists() and is_store(store):
        _refuse_other(path, store)
        return str(store), [f"{store}: made of {path.name} before"]
    report = ingest_files([path], store, IngestConfig(perturbation_column=labels_column(path)))
    return str(store), list(report.lines)


def _refuse_other(path: Path, store: Path) -> None:
    if open_store(store).description.get("source_digest") != source_digest(path):
        raise CasesError(
            f"{store} is beside {path.name}, but was made of another file (its digest differs); remove it, or give the "
            "store itself instead of the h5ad"
        )


def labels_column(path: Path) -> str | None:
    """The column of Ensembl ids, where genes are called by these and some of its labels are genes; else None.

    Raises:
        UserError: the file cannot be read.
    """
    found = open_hdf5(path, SourceOptions())
    if GENE_ID not in found.obs:
        return None
    labels = set(found.obs[GENE_ID].astype(str))
    has_controls = any(bare(label) in CONTROL_NAMES for label in labels)
    return GENE_ID if has_controls and labels & set(map(str, found.var.index)) else None


def summary_of(text: str, data: str) -> SummaryTableConfig:
    """The table of summary statistics in FILE or FILE:SHEET.

    Of an xlsx of several sheets without a name, the published sheet of the cell line that `data` is called after is
    taken.

    Raises:
        CasesError: there is no such file, or no sheet follows.
    """
    name, colon, sheet = text.rpartition(":")
    file = Path(text) if Path(text).is_file() or not colon else Path(name)
    if not file.is_file():
        raise CasesError(f"--summary {text}: no such file; give the table of summary statistics, FILE or FILE:SHEET")
    if file.suffix.lower() not in EXCEL:
        if file != Path(text):
            raise CasesError(f"--summary {text}: {file.name} has no sheets; give the file alone")
        return SummaryTableConfig(file=file.absolute())
    sheets = sheets_of(file)
    wanted = sheet if file != Path(text) else _published(Path(data).name, sheets)
    if wanted not in sheets:
        asked = f"has no sheet {wanted!r}" if wanted else "has several sheets"
        raise CasesError(f"--summary {text}: {file.name} {asked}, but {some(sheets, 20)}; choose one: FILE:SHEET")
    return SummaryTableConfig(file=file.absolute(), sheet=wanted)


def _published(data: str, sheets: list[str]) -> str:
    if len(sheets) == 1:
        return sheets[0]
    found = [sheet for line, sheet in SHEETS.items() if line in data.casefold() and sheet in sheets]
    return found[0] if len(found) == 1 else ""
