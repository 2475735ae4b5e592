"""tracking.json of a run directory: where the run is logged, and how it ended."""

import json
import logging
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from grndist.config import Config, validate
from grndist.errors import UserError
from grndist.files import written_aside
from grndist.tracking.config import TrackingConfig
from grndist.tracking.mlflow_run import Status
from grndist.tracking.spool import new_key

NAME = "tracking.json"

logger = logging.getLogger(__name__)


class Record(Config):
    """What tracking.json says."""

    run_id: str = ""  # MLflow's; empty until MLflow has answered
    key: str = ""  # ours, by which the run is found there without the id
    status: Status | Literal["RUNNING"] = "FINISHED"
    config: TrackingConfig


class Recorder:
    """Keeps a run's tracking.json, if it has one on this machine; two threads may change it."""

    def __init__(self, record: Record, folder: Path | None = None):
        self.record, self._folder, self._lock = record, folder, Lock()

    def note(self, **changes: Any) -> None:
        """Change it, on the disk as well if that can be; without MLflow's id the run is found by its key."""
        with self._lock:
            self.record = self.record.model_copy(update=changes)
            if self._folder is not None:
                try:
                    write_record(self._folder, self.record)
                except UserError as error:
                    logger.warning("%s", error)


def begun(folder: Path, config: TrackingConfig, run_id: str = "") -> Recorder:
    """The tracking.json of a run that begins or goes on."""
    before = read_record(folder)
    run_id, key = run_id or (before.run_id if before else ""), before.key if before else ""
    recorder = Recorder(Record(run_id=run_id, key=key or new_key(), config=config), folder)
    recorder.note(status="RUNNING")
    return recorder


def read_record(folder: Path) -> Record | None:
    """What tracking.json says, if there is one.

    Raises:
        ConfigError: it is not valid.
    """
    file = folder / NAME
    return parsed_record(file.read_bytes(), file) if file.is_file() else None


def parsed_record(content: bytes, where: str | Path) -> Record:
    """What is in a tracking.json.

    Raises:
        ConfigError: it is not valid.
    """
    return validate(Record, json.loads(content), where)


def write_record(folder: Path, record: Record) -> None:
    """Write it, whole.

    Raises:
        WriteError: the folder may not be written, or the disk is full.
    """
    with written_aside(folder / NAME, overwrite=True) as aside:
        aside.write_text(record.model_dump_json(indent=1))
