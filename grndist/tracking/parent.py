"""Runs that stand above others, and the end of runs whose process cannot say it any more."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from grndist.tracking.beginning import Place, open_tracker
from grndist.tracking.config import TrackingConfig
from grndist.tracking.mlflow_run import Run, Status, prepare_mlflow
from grndist.tracking.opening import OF_KEY, connected, uri_of
from grndist.tracking.record import begun
from grndist.tracking.sender import root_cause
from grndist.tracking.spool import Head
from grndist.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


def open_parent(
    config: TrackingConfig, root: Path, name: str, run_id: str = "", tags: Mapping[str, str] | None = None
) -> Tracker:
    """Start the run of a sweep in MLflow, below which its trials are shown, or continue it.

    It is a `Tracker`: `log_settings`, `log_metrics`, `log_file`, `run_id`, `close(status)`. tracking.json in the
    sweep's folder, `root/name`, knows the run when the sweep goes on; what MLflow does not take waits beside it. Trials
    take `reference(tracker)` as their `TrackingConfig.parent`.

    Args:
        config: where; its own parent and tags stand.
        root: the folder of the sweep's folder; SQLite is there, if no server is named.
        name: of the sweep.
        run_id: MLflow's id of a run to continue, if tracking.json does not know it.
        tags: further ones.
    """
    config = config.model_copy(update={"tags": config.tags | dict(tags or {})})
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    recorder = begun(folder, config, run_id)
    place = Place(folder, str(folder))
    return open_tracker(config, root, name, recorder.record.run_id, place, recorder, is_run=True)


def reference(parent: Tracker) -> str:
    """What a child names its parent by: MLflow's id or, if MLflow has not answered yet, the parent's key."""
    return parent.run_id or (f"{OF_KEY}{parent.key}" if parent.key else "")


def end_if_open(config: TrackingConfig, root: Path, run_id: str, status: Status = "KILLED") -> bool:
    """End a run that MLflow believes to go on, but whose process is gone; whether it was so.

    Waits for MLflow, a few seconds at most if that does not answer; then there is a warning, and the answer is no. For
    a run directory with a spool `replay` does this, too, and sends what waits there.
    """
    if config.kind == "none" or not run_id:
        return False
    prepare_mlflow()
    head = Head(config=config, root=str(root.resolve()), name="", run="", key="", run_id=run_id)
    try:
        client = connected(uri_of(head), Path(head.root))
        found = client.get_run(run_id)
        if found.info.status != "RUNNING":
            return False
        Run(client, found.info.experiment_id, run_id).set_status(status, int(time.time() * 1000))
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises must not reach the sweep
        logger.warning("MLflow at %s: run %s may be left open (%s)", uri_of(head), run_id, root_cause(error))
        return False
    return True
