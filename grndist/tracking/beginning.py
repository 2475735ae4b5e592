"""How the tracking of a run begins: its spool, its threads, and what tracking.json knows."""

from dataclasses import dataclass
from pathlib import Path

from grndist.tracking.config import TrackingConfig
from grndist.tracking.mlflow_run import prepare_mlflow
from grndist.tracking.opening import uri_of
from grndist.tracking.record import Recorder
from grndist.tracking.spool import Head, new_key, spool_of
from grndist.tracking.tracker import Tracker


@dataclass(frozen=True)
class Place:
    """Where a run is worked on."""

    folder: Path  # of this machine
    run: str  # the run directory, a path or URL


def open_tracker(
    config: TrackingConfig, run_root: Path, run_name: str, run_id: str = "", place: Place | None = None,
    recorder: Recorder | None = None, is_run: bool = False,
) -> Tracker:  # fmt: skip
    """Start a run called `run_name`, or continue the one whose id is `run_id`, without waiting for MLflow's answer.

    Takes the time of `import mlflow`, a second or a few. What goes wrong, now or later, is one warning. If `run_id`
    is not known there (any more), a new run is started and a warning says so.

    Args:
        config: whether and where.
        run_root: where SQLite is, if no server is named.
        run_name: the run's name in MLflow.
        run_id: MLflow's id of the run to continue.
        place: where it is worked on; `run_root/run_name` if not given.
        recorder: of tracking.json: it knows the run's key, and is told MLflow's id and the status.
        is_run: whether this is the run itself, whose status and use of the machine are logged, too.
    """
    if config.kind == "none":
        return Tracker(None, "off (tracking.kind is none)", recorder=recorder)
    prepare_mlflow()
    root = run_root.resolve()
    place = place or Place(root / run_name, str(root / run_name))
    key = (recorder.record.key if recorder else "") or new_key()
    head = Head(config=config, root=str(root), name=run_name, run=place.run, key=key, run_id=run_id)
    spool = spool_of(place.folder, head)
    return Tracker(spool, uri_of(spool.head), is_run, config.log_network, recorder)
