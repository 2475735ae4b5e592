"""What the values of the sources are: counts, their logarithms, or neither; and why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from grndist.data.ingest.combine import Combined
from grndist.data.ingest.parts import column_dtype
from grndist.data.ingest.spill import LARGEST_COUNT, LARGEST_LOG, Found, Spill
from grndist.data.sources import Source, SourceError
from grndist.data.store import State


def decide_state(
    folder: Path, sources: Sequence[Source], together: Combined, found: Sequence[Found], asked: str, where: str | None
) -> tuple[State, str]:
    """What the values are, and why.

    Args:
        folder: of the spill files.
        sources: the sources.
        together: their cells and genes in the store.
        found: what was found in each part.
        asked: a state, or "auto".
        where: which cells were kept, for the message.

    Raises:
        SourceError: every value is zero, they are not what was asked for, or sources differ.
    """
    seen = [[part for part in found if part.source == number and part.n_values] for number in range(len(sources))]
    if not any(seen):
        raise SourceError(_only_zeros(sources, together, sum(part.n_rows for part in found), where))
    decided = {
        file: _decided(folder, number, sources, together, parts, asked)
        for number, (file, parts) in enumerate(zip(together.files, seen, strict=True))
        if parts
    }
    states = {state for state, _ in decided.values()}
    if len(states) > 1:
        each = "; ".join(f"{file}: {state}, because {why}" for file, (state, why) in decided.items())
        raise SourceError(f"the files' values are of different kinds ({each}); give files of one kind, or pass --state")
    return next(iter(decided.values()))


def check_counts(sources: Sequence[Source], together: Combined, part: Found) -> None:
    """Raise for a value that is not whole.

    Raises:
        SourceError: naming its place.
    """
    if part.n_broken:
        raise SourceError(
            f"{sources[part.source].path}: --state counts, but {place_of(sources, together, part, part.broken_place)} "
            f"is {part.broken_text} ({part.n_broken} values in that part of the file are not whole); leave --state "
            "out, or choose the counts with --layer or --raw"
        )


def place_of(sources: Sequence[Source], together: Combined, part: Found, place: tuple[int, int]) -> str:
    """The gene and cell of a value, for messages."""
    row, column = place
    return f"gene {str(together.var.index[column])!r} in cell {str(sources[part.source].obs.index[row])!r}"


def _only_zeros(sources: Sequence[Source], together: Combined, n_cells: int, where: str | None) -> str:
    name = ", ".join(str(source.path) for source in sources)
    if where is not None:
        return f"{name}: the {n_cells} cells that --where {where!r} keeps hold only zeros; loosen it"
    return f"{name} is empty: all values of its {n_cells} cells and {len(together.var)} genes are zero"


def _decided(
    folder: Path, number: int, sources: Sequence[Source], together: Combined, parts: Sequence[Found], asked: str
) -> tuple[State, str]:
    """State of one source, and why."""
    if asked in ("log1p", "continuous"):
        return asked, "--state says so"  # type: ignore[return-value]
    largest = max(part.largest for part in parts)
    if not any(part.n_broken for part in parts):
        _check_largest(sources, together, max(parts, key=lambda part: part.largest))
        return "counts", "every value is a whole number"
    if asked == "counts":
        check_counts(sources, together, next(part for part in parts if part.n_broken))
    if sources[number].logged:
        return "log1p", 'the file says so (uns["log1p"])'
    if largest <= LARGEST_LOG and _equal_totals(folder, parts, len(together.var)):
        return "log1p", "the cells' sums of exp(value) - 1 are equal within 1 %"
    if largest <= LARGEST_LOG:
        return "log1p", f"values are not whole and at most {largest:.4g} (otherwise pass --state continuous)"
    return "continuous", f"values are not whole and reach {largest:.4g} (otherwise pass --state log1p)"


def _check_largest(sources: Sequence[Source], together: Combined, part: Found) -> None:
    if part.largest > LARGEST_COUNT:
        raise SourceError(
            f"{sources[part.source].path}: {place_of(sources, together, part, part.largest_place)} is "
            f"{part.largest_text}, more than a count can be ({LARGEST_COUNT}); if these are no counts, pass "
            "--state continuous"
        )


def _equal_totals(folder: Path, parts: Sequence[Found], n_genes: int) -> bool:
    totals = np.concatenate([Spill(folder, part, column_dtype(n_genes)).totals_of_exp for part in parts])
    return bool(totals.max() - totals.min() <= 0.01 * np.median(totals))
