"""What an ingest found and did, in numbers and in words."""

from dataclasses import dataclass

from grndist.data.ingest.columns import kept_columns
from grndist.data.ingest.finish import Built
from grndist.data.ingest.labels import labels_described
from grndist.data.ingest.prepare import Intake
from grndist.data.store import State
from grndist.genes import NON_TARGETING, some


@dataclass(frozen=True)
class IngestReport:
    """What was found and done; `lines` say it in words."""

    n_cells: int
    n_genes: int
    state: State
    n_controls: int
    perturbed_genes: tuple[str, ...]
    unmapped: dict[str, int]  # label -> cells
    combined: dict[str, int]  # those of `unmapped` that name several genes
    digest: str
    lines: tuple[str, ...]


def report_of(intake: Intake, built: Built, why: str, source_bytes: int, seconds: float) -> IngestReport:
    """The report on a store that is in its place."""
    labels, n_cells, n_genes = intake.labels, len(intake.obs), len(intake.together.var)
    single = [label for label, count in labels.cells.items() if count == 1]
    lines = [
        *_described(intake, built),
        f"state: {built.state}, because {why}",
        *labels_described(labels, intake.together.var),
    ]
    kept = kept_columns(_columns_before(intake), built.columns)
    if kept:
        lines.append(f"columns of the source whose names a store uses itself are kept as {some(kept, 20)}")
    if single:
        lines.append(f"labels of one cell: {len(single):,}: {some(single)}")
    lines.append(
        f"store: {_megabytes(built.bytes)}, {built.bytes / max(source_bytes, 1):.2f} of the source's "
        f"{_megabytes(source_bytes)}; {seconds:.1f} s, {n_cells / max(seconds, 1e-9):,.0f} cells/s"
    )
    return IngestReport(
        n_cells=n_cells,
        n_genes=n_genes,
        state=built.state,
        n_controls=labels.cells.get(NON_TARGETING, 0),
        perturbed_genes=labels.perturbed_genes,
        unmapped=labels.unmapped,
        combined=labels.combined,
        digest=built.digest,
        lines=tuple(lines),
    )


def _columns_before(intake: Intake) -> list[str]:
    return [str(name) for source in intake.sources for table in (source.obs, source.var) for name in table.columns]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _described(intake: Intake, built: Built) -> list[str]:
    cells, var, config = len(intake.obs), intake.together.var, intake.config
    genes, whole = len(var), len(intake.kept)
    kinds = dict.fromkeys(source.description for source in intake.sources)
    lines = [
        f"source: {', '.join(intake.together.files)} ({'; '.join(kinds)})",
        *intake.together.lines,
        f"matrix: {cells:,} cells x {genes:,} genes, {100 * (1 - built.n_values / (cells * genes)):.1f} % zeros",
    ]
    if config.where is not None:
        lines.append(f"cells: {whole - cells:,} of {whole:,} dropped by --where {config.where!r}")
    if built.n_silent:
        lines.append(f"cells: {built.n_silent:,} in which nothing was seen are kept")
    unseen, constant = list(var.index[~built.seen]), list(var.index[built.constant])
    if unseen:
        lines.append(f"genes: {len(unseen):,} never seen in these cells are kept: {some(unseen)}")
    if constant:
        lines.append(f"genes: {len(constant):,} of zero variance (the same in every cell) are kept: {some(constant)}")
    return lines
