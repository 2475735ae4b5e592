"""From sources to a store: which cells, what their labels mean, and what state the values are in.

Everything that was guessed or left out is a line of the report.
"""

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from time import monotonic
from typing import Any

from grndist.data.ingest.build import build, layout, parts_done, refuse_other, shards_done
from grndist.data.ingest.combine import file_names
from grndist.data.ingest.commit import refuse_remote, upload
from grndist.data.ingest.finish import Built, Contents
from grndist.data.ingest.job import Places, check_space, identity, places_for, values_in, working
from grndist.data.ingest.parts import Part
from grndist.data.ingest.prepare import IngestConfig, Intake, contents_of, intake_of, parts_of
from grndist.data.ingest.report import IngestReport, report_of
from grndist.data.ingest.schedule import Run, threads
from grndist.data.ingest.spill import NotCountsError
from grndist.data.ingest.states import check_counts, decide_state
from grndist.data.selection.split import split_cells
from grndist.data.sources import Source, SourceError, check_within_reach, open_source
from grndist.data.store import FORMAT_VERSION, State, digest_of, manifest_of
from grndist.errors import UserError
from grndist.files import put_in_place, refuse_existing, remove, write_whole
from grndist.machine import available_cpus
from grndist.storage import is_remote

__all__ = ["IngestConfig", "IngestReport", "ingest", "ingest_files"]

LOG = getLogger(__name__)
VALUES_PER_PART = 2**23  # stored values that a thread holds in the first pass


def ingest(source: Path, store: str | Path, config: IngestConfig, overwrite: bool = False) -> IngestReport:
    """Read one `source` and write `store`, in threads of this process; see `ingest_files`."""
    return ingest_files([source], store, config, overwrite)


def ingest_files(
    paths: Sequence[Path],
    store: str | Path,
    config: IngestConfig,
    overwrite: bool = False,
    work: Path | None = None,
    run: Run | None = None,
) -> IngestReport:
    """Read sources, decide what their values and labels are, and write a store.

    The same call again goes on where one that was killed or interrupted has ended.

    Args:
        paths: one source or several.
        store: the store's folder, or its URL.
        config: what to take, and how.
        overwrite: replace an existing store.
        work: a folder in which to work; beside the store if None, or in the current folder for one at a URL.
        run: where tasks run; in as many threads as this process has CPUs if None.

    Raises:
        UserError: a source, an option or the store's place is wrong, and nothing is left; or something is out of reach,
            and finished pieces stay (see `job`), as the message says then.
        IngestInterruptedError, WriteError: stopped from the keyboard, or the disk is full; finished pieces stay.
    """
    began = monotonic()
    files = file_names(paths)
    places = _places(paths, store, overwrite, work)
    check_within_reach(paths, config)
    split_cells(["a cell"], ["its label"], config.split)  # refuses wrong fractions before long work
    run = run or threads(available_cpus())
    asked, before = _asked(paths, store, config), [identity(path) for path in paths]
    with working(places, asked) as goes_on:
        _take_back(places)
        sources = [_opened(path, config, places, number) for number, path in enumerate(paths)]
        intake = intake_of(sources, files, config)
        contents = contents_of(intake, paths, files, config, places, run)
        parts = parts_of(intake, VALUES_PER_PART)
        if goes_on:
            done, shards = parts_done(places.work, parts), shards_done(places.work)
            LOG.info("going on with %s: %d of %d parts and %d shards are done", places.work, done, len(parts), shards)
        built, why = _built(intake, places, parts, contents, run)
        check_within_reach(paths, config)
        if [identity(path) for path in paths] != before:
            raise SourceError(f"{' or '.join(map(str, paths))} was changed while it was read; ingest again")
        _commit(places, store, built.digest, run)
    return report_of(intake, built, why, sum(entry[1] for file in before for entry in file), monotonic() - began)


def _places(paths: Sequence[Path], store: str | Path, overwrite: bool, work: Path | None) -> Places:
    """Where to work, after checking that the store may be written."""
    if is_remote(store):
        places = places_for(None, str(store).rstrip("/").rpartition("/")[2], work)
    else:
        places = places_for(Path(store), Path(store).name, work)
        for path in paths:
            _refuse_own_source(path, Path(store))
    try:
        if is_remote(store):
            refuse_remote(str(store), overwrite, begun=_markers(places).is_dir())
        else:
            refuse_other(Path(store), overwrite)
            refuse_existing(Path(store), overwrite)
    except UserError:
        if _is_committed(places, store):  # killed after the store was in its place
            places.remove()
        raise
    return places


def _markers(places: Places) -> Path:
    return places.work / "uploaded"


def _committing(places: Places) -> Path:
    """Holds the digest of the store that is brought to its place."""
    return places.work / "committing"


def _ready(places: Places) -> Path:
    """The finished store on its way; not `store`, since after a kill it may be what was replaced."""
    return places.beside / "ready"


def _is_committed(places: Places, where: str | Path) -> bool:
    """Whether the store at `where` is the one that was to be brought to its place."""
    if not _committing(places).is_file():
        return False
    try:
        return _committing(places).read_text() == digest_of(manifest_of(where)[2])
    except UserError:  # no store, or not a whole one
        return False


def _take_back(places: Places) -> None:
    """Go on with a finished store that did not get to its place; another one there was replaced and goes away."""
    if _is_committed(places, _ready(places)) and not places.store.exists():
        _ready(places).rename(places.store)
    remove(_ready(places))


def _refuse_own_source(source: Path, store: Path) -> None:
    if store.resolve() in (source.resolve(), *source.resolve().parents):
        raise SourceError(f"{source} would be replaced by the store {store}; give the store a path of its own")


def _asked(paths: Sequence[Path], store: str | Path, config: IngestConfig) -> dict[str, Any]:
    """What identifies an ingest: another one cannot use its pieces."""
    tables = [] if config.cells_table is None else [identity(config.cells_table)]
    return {
        "format_version": FORMAT_VERSION,
        "cut": [VALUES_PER_PART, *layout()],
        "store": str(store) if is_remote(store) else str(Path(store).absolute()),
        "sources": [[str(path.resolve()), identity(path)] for path in paths],
        "tables": tables,
        "options": config.model_dump(mode="json"),
    }


def _built(intake: Intake, places: Places, parts: list[Part], contents: Contents, run: Run) -> tuple[Built, str]:
    """The store, whole but not in its place, and why its values are what they are."""
    reasons: list[str] = []

    def decide(found: list) -> State:
        config = intake.config
        state, why = decide_state(places.work, intake.sources, intake.together, found, config.state, config.where)
        reasons.append(why)
        return state

    n_values = sum(values_in(source.rows) for source in intake.sources)
    check_space(places, int(n_values * intake.kept.mean()), spilled=False)
    try:
        built = build(
            places.work,
            places.store,
            parts,
            intake.kept,
            contents,
            decide,
            run,
            lambda n_values: check_space(places, n_values, spilled=True),
        )
    except NotCountsError as error:
        check_counts(intake.sources, intake.together, error.found)
        raise
    return built, reasons[0]


def _opened(path: Path, config: IngestConfig, places: Places, number: int) -> Source:
    work = places.work / "sources" / str(number)
    work.mkdir(parents=True, exist_ok=True)
    return open_source(path, config, work)


def _commit(places: Places, store: str | Path, digest: str, run: Run) -> None:
    """Put the store in its place."""
    write_whole(_committing(places), [digest.encode()])
    if is_remote(store):
        upload(places.store, str(store), _markers(places), run)
        return
    places.store.rename(_ready(places))
    put_in_place(_ready(places), Path(store))
