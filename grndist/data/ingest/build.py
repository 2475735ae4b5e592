"""Making a store from rows: two passes over the cells, each a set of independent tasks whose results are files.

First every part of the rows is read once and left in a spill file, its cells in the order of the store; then every
shard is gathered from the spill files. Memory holds one part or one shard per thread, however many cells there are.
Both passes skip what is done, so a build that was killed goes on where it was.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64
from scipy import sparse

from grndist.data.ingest.assemble import Target, Work, assemble_tasks, moments_of
from grndist.data.ingest.finish import Built, Cells, Contents, finish
from grndist.data.ingest.parts import MatrixRows, Part, column_dtype
from grndist.data.ingest.schedule import Run, inline
from grndist.data.ingest.spill import (
    LARGEST_COUNT,
    Found,
    NotCountsError,
    Spill,
    destination_file,
    found_in,
    is_spilled,
    raw,
    spill_tasks,
)
from grndist.data.selection.library_size import median_total
from grndist.data.store import CHUNK, ROWS_PER_CHUNK, SHARD, Profile, State, StoreError, is_store
from grndist.files import aside_of, put_in_place, refuse_existing, remove, write_whole
from grndist.progress import watched
from grndist.seeds import stream

DENSE_SHARD = 2**26  # bytes that a shard of a dense matrix has at least


def write_store(
    path: Path,
    matrix: sparse.csr_matrix,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    state: State,
    source: dict[str, str],
    shuffle_seed: int = 0,
    overwrite: bool = False,
    profile: Profile = "train",
) -> None:
    """Write a store beside `path`, then put it in place; whatever was there stays until then.

    Args:
        path: the store's directory.
        matrix: [cells, genes], values in `state`.
        obs: one row a cell, with a `perturbation` column in which controls are "non-targeting".
        var: one row a gene; its index is the panel.
        state: what the values are; counts are kept as unsigned integers.
        source: where the data come from, for the record.
        shuffle_seed: cells are put in this random order, so that any block of them is a random sample.
        overwrite: replace an existing store.
        profile: "train" for a sparse matrix that streams, "archive" for a dense one of half the size.

    Raises:
        UserError: the disk is full, a count is not whole or beyond 32 bits, or what is there is no store.
    """
    refuse_other(path, overwrite)
    refuse_existing(path, overwrite)
    folder = aside_of(path).absolute()
    try:
        folder.mkdir()
        rows = MatrixRows(sparse.csr_matrix(matrix))
        part = Part(0, 0, rows, 0, matrix.shape[0], 0, None, only_counts=state == "counts")
        contents = Contents(obs, var, source, shuffle_seed, profile)
        build(folder, folder / "store", [part], np.ones(matrix.shape[0], dtype=bool), contents, lambda _: state)
        put_in_place(folder / "store", path)
    except NotCountsError as error:
        raise StoreError(f"a count is {error.found.broken_text}, which is not whole; are these counts?") from None
    finally:
        remove(folder)


def refuse_other(path: Path, overwrite: bool) -> None:
    """Raise where something that is no store would be replaced."""
    if overwrite and path.exists() and not is_store(path):
        raise StoreError(f"{path} exists and is not a grndist store, so it is not overwritten; choose another name")


def build(
    folder: Path,
    store: Path,
    parts: Sequence[Part],
    kept: Bool[np.ndarray, " rows"],
    contents: Contents,
    decide: Callable[[list[Found]], State],
    run: Run = inline,
    check_space: Callable[[int], None] = lambda n_values: None,
) -> Built:
    """Make a whole store in the folder `store`, going on with what an earlier attempt has left there.

    Args:
        folder: for spill files and records; it and `store` are absolute.
        store: a folder on the file system where the store will be.
        parts: all rows of all sources, cut.
        kept: which of the rows become cells, in the same order.
        contents: tables and record.
        decide: from what was found in the parts to what the values are; it may refuse them.
        run: where tasks run.
        check_space: called between the passes with the number of values to write.

    Raises:
        UserError: a source is damaged or its values are refused, or the disk is full.
    """
    order = stream(contents.shuffle_seed, "store-order").permutation(int(kept.sum()))
    _write_destinations(folder, kept, order)
    found = _spilled(folder, parts, run)
    state = decide(found)
    cells = _gathered(folder, found, len(order), len(contents.var))
    check_space(int(cells.indptr[-1]))
    work = Work(folder, store, _target(contents, state, cells, found))
    _assemble(work, found, cells, run)
    moments = moments_of(work)
    return finish(work, cells, moments, contents, state, order)


def layout() -> list[int]:
    """Sizes that decide how a store is cut: pieces of another layout cannot be gone on with."""
    return [CHUNK, SHARD, ROWS_PER_CHUNK, DENSE_SHARD]


def parts_done(folder: Path, parts: Sequence[Part]) -> int:
    """How many parts are spilled."""
    return sum(is_spilled(folder, part.number) for part in parts)


def shards_done(folder: Path) -> int:
    """How many shards are written."""
    return sum(1 for _ in (folder / "shards").glob("[0-9]*.npz"))


def _write_destinations(folder: Path, kept: Bool[np.ndarray, " rows"], order: Int64[np.ndarray, " cells"]) -> None:
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    destinations = np.full(len(kept), -1, dtype=np.int64)
    destinations[kept] = places
    write_whole(destination_file(folder), [raw(destinations)])


def _spilled(folder: Path, parts: Sequence[Part], run: Run) -> list[Found]:
    tasks = spill_tasks(folder, parts)
    with watched(lambda: parts_done(folder, parts), "read", len(parts)):
        run(tasks)
    return [found_in(folder, part.number) for part in parts]


def _gathered(folder: Path, found: list[Found], n_cells: int, n_genes: int) -> Cells:
    lengths, totals = np.zeros(n_cells + 1, dtype=np.int64), np.zeros(n_cells)
    for part in found:
        spill = Spill(folder, part, column_dtype(n_genes))
        destinations = spill.destinations
        lengths[destinations + 1] = np.diff(spill.starts)
        totals[destinations] = spill.totals
    return Cells(np.cumsum(lengths), totals, median_total(totals))


def _target(contents: Contents, state: State, cells: Cells, found: list[Found]) -> Target:
    largest, n_genes = max(part.largest for part in found), len(contents.var)
    if state == "counts" and largest > LARGEST_COUNT:
        raise StoreError(f"a count of {largest:.0f} does not fit 32 bits; are these counts?")
    counts = np.uint16 if largest < 2**16 else np.uint32
    dtype = np.dtype(counts if state == "counts" else np.float32)
    chunk, shard = CHUNK, SHARD
    if contents.profile == "archive":
        chunk = ROWS_PER_CHUNK * n_genes
        shard = chunk * -(-DENSE_SHARD // (chunk * dtype.itemsize))
    return Target(
        profile=contents.profile,
        n_cells=len(cells.totals),
        n_genes=n_genes,
        n_values=int(cells.indptr[-1]),
        dtype=dtype.name,
        with_logs=state == "counts",
        chunk=chunk,
        shard=shard,
    )


def _assemble(work: Work, found: list[Found], cells: Cells, run: Run) -> None:
    scales = np.zeros_like(cells.totals)
    np.divide(cells.median_total, cells.totals, out=scales, where=cells.totals > 0)
    write_whole(work.indptr, [raw(cells.indptr)])
    write_whole(work.scales, [raw(scales)])
    begin, end = rows = work.target.rows(cells.indptr)
    first, last = (np.empty((len(found), len(begin)), dtype=np.int64) for _ in range(2))
    for number, part in enumerate(found):
        destinations = Spill(work.folder, part, column_dtype(work.target.n_genes)).destinations
        first[number] = np.searchsorted(destinations, begin)
        last[number] = np.searchsorted(destinations, end)
    tasks = assemble_tasks(work, [part.number for part in found], rows, (first, last))
    with watched(lambda: shards_done(work.folder), "write", work.target.n_shards):
        run(tasks)
