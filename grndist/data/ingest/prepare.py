"""What an ingest is to do, found before any value is read: which cells and genes, and what the labels mean."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool
from pydantic import Field

from grndist.data.ingest.combine import Combined, Genes, combine
from grndist.data.ingest.finish import Contents
from grndist.data.ingest.job import Places, cut, values_in
from grndist.data.ingest.labels import LabelOptions, Labels, labelled, read_labels
from grndist.data.ingest.parts import Part
from grndist.data.ingest.schedule import Run
from grndist.data.selection.split import FRACTIONS
from grndist.data.selection.where import holds
from grndist.data.sources import Source, SourceError, SourceOptions, source_digest
from grndist.data.store import Profile
from grndist.files import write_whole
from grndist.genes import GenePanel


class IngestConfig(SourceOptions, LabelOptions):
    """What to take from a source, what its labels are called, and what kind of store to make."""

    where: str | None = Field(None, description="keep cells for which this holds, e.g. 'grna_max_frac > 0.9'")
    state: Literal["auto", "counts", "log1p", "continuous"] = Field("auto", description="what the values are")
    shuffle_seed: int = Field(0, ge=0, description="of the order of cells in the store")
    genes: Genes = Field("intersection", description="of several files: the genes of all, or of any")
    prefix_cells: bool = Field(False, description="call cells FILE:cell, where files share names of cells")
    split: tuple[float, float, float] = Field(FRACTIONS, description="shares of train, validation and test cells")
    split_seed: int = Field(0, ge=0, description="of the choice of train, validation and test cells")
    profile: Profile = Field("train", description="train: sparse, streams fast; archive: dense, half the size")


@dataclass(frozen=True)
class Intake:
    """What is to be done, before values are read."""

    sources: list[Source]
    together: Combined
    kept: Bool[np.ndarray, " rows"]
    labels: Labels
    obs: pd.DataFrame  # of the cells kept, labelled
    config: IngestConfig

    @property
    def name(self) -> str:
        """The sources, for messages."""
        return _named([source.path for source in self.sources])


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def intake_of(sources: list[Source], files: Sequence[str], config: IngestConfig) -> Intake:
    """Which cells and genes, and what the labels mean.

    Args:
        sources: as they were opened.
        files: what they are called in the store.
        config: what to take.

    Raises:
        SourceError: see `combine`, `holds` and `read_labels`.
    """
    together = combine(sources, files, config.genes, config.prefix_cells)
    name, whole = _named([source.path for source in sources]), together.obs
    kept = np.ones(len(whole), dtype=bool)
    if config.where is not None:
        kept = holds(whole, config.where, name, "--where", SourceError)
    if not kept.any():
        raise SourceError(f"{name}: --where {config.where!r} holds for none of its {len(kept)} cells; loosen it")
    chosen = whole if kept.all() else whole[kept]
    labels = read_labels(Path(name), whole, chosen, GenePanel(tuple(together.var.index)), config)
    obs = labelled(chosen, labels.per_cell)
    return Intake(sources, together, kept, labels, obs, config)


def contents_of(
    intake: Intake, paths: Sequence[Path], files: Sequence[str], config: IngestConfig, places: Places, run: Run
) -> Contents:
    """Tables and record of the store; the files' digests are computed here."""
    return Contents(
        obs=intake.obs,
        var=intake.together.var,
        source=_record(intake, paths, files, config, places, run),
        shuffle_seed=config.shuffle_seed,
        profile=config.profile,
        fractions=config.split,
        split_seed=config.split_seed,
    )


def _record(
    intake: Intake, paths: Sequence[Path], files: Sequence[str], config: IngestConfig, places: Places, run: Run
) -> dict[str, str]:
    """Where the store comes from; file names only, so that it means the same on every machine."""
    options = config.model_dump(mode="json", exclude_defaults=True)
    kinds = dict.fromkeys(source.description for source in intake.sources)
    digests = _digests(paths, places, run)
    lines = [f"{digest}  {file}\n" for digest, file in zip(digests, files, strict=True)]
    together = digests[0] if len(paths) == 1 else hashlib.sha256("".join(lines).encode()).hexdigest()
    record = {"file": ", ".join(files), "kind": "; ".join(kinds), "sha256": together}
    if config.cells_table is not None:
        options["cells_table"] = config.cells_table.name
        record["cells_table_sha256"] = source_digest(config.cells_table)
    return record | {"options": json.dumps(options, sort_keys=True)}


def _digests(paths: Sequence[Path], places: Places, run: Run) -> list[str]:
    results = [places.work / f"sha256-{number}" for number in range(len(paths))]
    pairs = zip(paths, results, strict=True)
    run([partial(_write_digest, path.absolute(), result) for path, result in pairs if not result.exists()])
    return [result.read_text() for result in results]


def _write_digest(path: Path, result: Path) -> None:
    write_whole(result, [source_digest(path).encode()])


def parts_of(intake: Intake, values_per_part: int) -> list[Part]:
    """All rows of all sources, cut so that a part has about `values_per_part` stored values."""
    rows = [source.rows for source in intake.sources]
    first = np.cumsum([0, *(matrix.shape[0] for matrix in rows)]).tolist()
    return [
        Part(
            number=number,
            source=source,
            rows=rows[source],
            start=start,
            stop=stop,
            first=first[source] + start,
            columns=intake.together.columns[source],
            only_counts=intake.config.state == "counts",
        )
        for number, (source, start, stop) in enumerate(cut(rows, [values_in(m) for m in rows], values_per_part))
    ]
