"""Several sources as one: cells one file after the other, on the genes that all of them or any of them have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from grndist.data.ingest.columns import with_columns
from grndist.data.ingest.parts import Columns
from grndist.data.sources import Source, SourceError
from grndist.genes import some

Genes = Literal["intersection", "union"]


@dataclass(frozen=True)
class Combined:
    """The cells and genes of all sources; `columns[i]` says where source i's genes go, None: where they are."""

    files: tuple[str, ...]  # what each source is called in the store
    obs: pd.DataFrame
    var: pd.DataFrame
    columns: tuple[Columns | None, ...]
    lines: tuple[str, ...]  # of the report


def combine(sources: Sequence[Source], files: Sequence[str], genes: Genes, prefix_cells: bool) -> Combined:
    """Put sources together.

    A column of the cells that one file lacks is missing for its cells; the table of genes is the first file's.

    Args:
        sources: at least one.
        files: what each is called; see `file_names`.
        genes: "intersection": genes of every file; "union": of any file, zero where a file lacks them. In the order of
            the first file, then of appearance.
        prefix_cells: call cells FILE:cell.

    Raises:
        SourceError: cells of one name, or no common gene.
    """
    files = tuple(files)
    obs = _cells(sources, files, prefix_cells)
    if len(sources) == 1:
        return Combined(files, obs, sources[0].var, (None,), ())
    names = _panel(sources, files, genes)
    columns = tuple(_columns(source.var.index, names) for source in sources)
    lines = _lines(sources, files, names, genes)
    return Combined(files, obs, sources[0].var.reindex(names), columns, lines)


def file_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The paths' names, with as many of their folders as it takes to tell them apart.

    Raises:
        SourceError: a path is there twice.
    """
    parts = [path.resolve().parts for path in paths]
    twice = sorted({str(path) for path, key in zip(paths, parts, strict=True) if parts.count(key) > 1})
    if twice:
        raise SourceError(f"{twice[0]} is given twice; give each source once")
    for count in range(1, max(map(len, parts)) + 1):
        names = tuple("/".join(part[-count:]) for part in parts)
        if len(set(names)) == len(names):
            break
    return names


def _cells(sources: Sequence[Source], files: Sequence[str], prefix_cells: bool) -> pd.DataFrame:
    tables = [source.obs for source in sources]
    if prefix_cells:
        stems = _stems(files)
        tables = [
            table.set_axis(stem + ":" + table.index.astype(str), axis=0)
            for table, stem in zip(tables, stems, strict=True)
        ]
    obs = tables[0] if len(tables) == 1 else pd.concat(tables, sort=False)
    _refuse_duplicates(obs.index, files, [len(table) for table in tables])
    codes = np.repeat(np.arange(len(files)), [len(table) for table in tables])
    return with_columns(obs, {"source_file": pd.Categorical.from_codes(codes, categories=list(files))})


def _stems(files: Sequence[str]) -> list[str]:
    stems = [file.split(".")[0] or file for file in files]
    return stems if len(set(stems)) == len(stems) else list(files)


def _refuse_duplicates(names: pd.Index, files: Sequence[str], sizes: Sequence[int]) -> None:
    if names.is_unique:
        return
    twice = names[names.duplicated()].unique()
    bounds = np.cumsum(sizes)
    at = np.flatnonzero(names == twice[0])
    where = [files[int(np.searchsorted(bounds, position, side="right"))] for position in at]
    raise SourceError(
        f"{len(twice)} cell names are in several files, among them {some(list(twice))} ({twice[0]!r} in "
        f"{' and '.join(where)}); pass --prefix-cells to call cells FILE:cell, or leave out what is there twice"
    )


def _panel(sources: Sequence[Source], files: Sequence[str], genes: Genes) -> pd.Index:
    names = sources[0].var.index
    for file, source in zip(files[1:], sources[1:], strict=True):
        common = names.isin(source.var.index)
        if not common.any():
            raise SourceError(
                f"{file} has no gene in common with {' and '.join(files[: files.index(file)])}: its genes are like "
                f"{some(list(source.var.index))}, theirs like {some(list(names))}; if these are names of different "
                "kinds, choose a column of the table of genes with --gene-column"
            )
        more = source.var.index[~source.var.index.isin(names)]
        names = names[common] if genes == "intersection" else names.append(more)
    return names


def _columns(own: pd.Index, panel: pd.Index) -> Columns | None:
    if own.equals(panel):
        return None
    place = panel.get_indexer(own)
    take = np.flatnonzero(place >= 0)
    take = take[np.argsort(place[take])]
    return Columns(take, place[take].astype(np.int64), len(panel))


def _lines(sources: Sequence[Source], files: Sequence[str], names: pd.Index, genes: Genes) -> tuple[str, ...]:
    lines = []
    for file, source in zip(files, sources, strict=True):
        own = source.var.index
        line = f"file: {file} ({source.description}), {len(own):,} genes"
        left_out, lacking = own[~own.isin(names)], names[~names.isin(own)]
        if len(left_out):
            line += f"; {len(left_out):,} that are not in every file are left out: {some(list(left_out))}"
        if len(lacking):
            line += f"; {len(lacking):,} it does not have are zero in its cells: {some(list(lacking))}"
        lines.append(line)
    kind = "in every file" if genes == "intersection" else "in some file"
    return (*lines, f"genes: {len(names):,} {kind} ({genes})")
