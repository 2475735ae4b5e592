"""The half that never waits: a queue of what to log, written to the spool by one thread and sent by another.

Every method returns at once and never raises. A store that does not answer costs one warning: the run goes on, and what
it has logged waits in the spool, which the thread that sends tries again now and then, and `replay` later. Knows
nothing of MLflow itself.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from grndist.storage import is_remote
from grndist.tracking.code_version import code_tags
from grndist.tracking.keys import plain
from grndist.tracking.mlflow_run import Status
from grndist.tracking.record import Recorder
from grndist.tracking.sender import Sender, described, root_cause
from grndist.tracking.spool import Entry, Spool
from grndist.tracking.usage import Usage

SPOOL_SECONDS = 0.5  # entries wait at most this long before they are on disk
BATCH_SECONDS = 3.0  # and this long before they are sent
RETRY_SECONDS = (5.0, 60.0)  # until a store that did not answer is asked again: at first, and at most
OPEN_SECONDS = 20.0  # `run_id` waits at most this long for a new run's id
CLOSE_SECONDS = 60.0  # `close` waits at most this long for the last uploads
USAGE_SECONDS = 10.0  # between looks at what the run takes of the machine
ENTRIES_HELD = 20_000  # in memory; more are there only if the disk of the run directory stands still
TOP_EDGES = 100

logger = logging.getLogger(__name__)


class Tracker:
    """A run's line to MLflow: every method returns at once and never raises; threads do the work in order."""

    def __init__(
        self, spool: Spool | None, place: str, is_run: bool = False, log_network: bool = True,
        recorder: Recorder | None = None,
    ):  # fmt: skip
        self._where = [f"MLflow: {place}"]
        self._place, self._log_network, self._recorder = place, log_network, recorder
        self._alive, self._is_abandoned, self._is_warned = spool is not None, False, False
        self._run_id = "" if spool is None else spool.head.run_id
        self.key = "" if spool is None else spool.head.key
        self._cause = ""  # why the store did not answer the last time
        self._is_sent = self._is_whole = False  # all that is on disk; all there is
        self._dropped = 0
        self._step = 0  # the last that was logged
        self._end: list[Entry] = []
        self._entries: queue.Queue[Entry] = queue.Queue(ENTRIES_HELD)
        self._settled, self._closing = threading.Event(), threading.Event()
        if spool is not None:
            self._spool, self._sender = spool, Sender(spool)
            self._usage = Usage() if is_run else None
            if is_run:
                self._put("status", status="RUNNING")
            self._writing = threading.Thread(target=self._write, name="tracking spool", daemon=True)
            self._sending = threading.Thread(target=self._send, name="mlflow", daemon=True)
            self._writing.start()
            self._sending.start()

    @property
    def run_id(self) -> str:
        """MLflow's id of this run, waited for briefly; if there is no answer, the id to continue, or empty."""
        if self._alive:
            self._settled.wait(OPEN_SECONDS)
        return self._run_id

    def where(self) -> list[str]:
        """Lines for the summary: where the run is logged and how to look at it."""
        return list(self._where)

    def log_settings(self, resolved: Mapping[str, Any]) -> None:
        """Log the resolved config: every setting as the param `key.path`, and the whole as config.yaml.

        MLflow's params never change: on a continued run the first value stands, and config.yaml is the last one.
        """
        self._put("settings", tree=json.loads(json.dumps(resolved, default=plain)))

    def log_dataset(self, name: str, digest: str, where: str | Path) -> None:
        """Log the store, a path or URL, as the training data: MLflow's digest has 36 letters of it, a tag has all."""
        uri = str(where) if is_remote(where) else Path(where).resolve().as_uri()
        self._put("dataset", name=name, digest=digest, uri=uri)

    def log_metrics(self, step: int, values: Mapping[str, float | int]) -> None:
        """Log numbers of one step, which MLflow has once: what a resumed run repeats is not logged again.

        They are sent in batches. MLflow keeps NaN, and infinity as the largest float.
        """
        self._step = int(step)
        self._put("metrics", step=int(step), values={name: float(value) for name, value in values.items()})

    def log_file(self, path: Path, folder: str = "") -> None:
        """Log a file, which must stay as it is until `close`, as an artifact in `folder`."""
        self._put("file", path=str(path), folder=folder)

    def log_edges(self, path: Path, table: pd.DataFrame) -> None:
        """Log the file of an edge list, and its strongest edges as a table; nothing if networks are not logged."""
        if self._log_network:
            self.log_file(path, "edges")
            self.log_top_edges(table)

    def log_top_edges(self, table: pd.DataFrame) -> None:
        """Log the first rows of a sorted edge list as the table edges/top.json; not if networks are not logged."""
        if self._log_network:
            top = table.head(TOP_EDGES)
            rows = json.loads(top.to_json(orient="split", index=False))
            self._put("table", table=rows, name="edges/top.json")

    def log_figure(self, path: Path) -> None:
        """Log a figure; nothing if networks are not logged."""
        if self._log_network:
            self.log_file(path, "figures")

    def log_model(self, files: Mapping[str, Path], name: str = "network", registered_model_name: str = "") -> None:
        """Log a checkpoint as a model whose prediction is its edge list (see `logged_network`); no pickle is written.

        Nothing if networks are not logged.

        Args:
            files: the checkpoint's files by their name inside it; they must stay as they are until `close`.
            name: the model's name in the experiment.
            registered_model_name: also make it the next version of this registered model; empty: do not.
        """
        if self._log_network:
            paths = {inside: str(path.resolve()) for inside, path in files.items()}
            self._put("model", paths=paths, name=name, registered=registered_model_name)

    def log_scores(self, scores: Mapping[str, Any]) -> None:
        """Log an evaluation: every number as the metric `key.path`, and the whole as scores.json."""
        self._put("scores", tree=json.loads(json.dumps(scores, default=plain)))

    @property
    def logs_network(self) -> bool:
        """Whether models, edges and figures are wanted."""
        return self._alive and self._log_network

    def close(self, status: Status | Literal[""] = "FINISHED", patience: float = CLOSE_SECONDS) -> None:
        """Send what is left, set the run's status (empty: leave it) and stop; waits at most `patience` seconds."""
        if status:
            self._note(status=status)
        if not self._alive:
            return
        if status:
            self._end = [{"kind": "status", "time": _now(), "status": status}]
        self._closing.set()
        self._sending.join(patience)
        self._alive = False
        if self._sending.is_alive():  # nobody waits for what it does last
            self._is_abandoned = True
            self._cause = self._cause or f"no answer within {patience:g} s"
        if not self._is_whole:
            self._waits()

    def _note(self, **changes: str) -> None:
        if self._recorder:
            self._recorder.note(**changes)

    def _put(self, kind: str, **what: Any) -> None:
        if not self._alive:
            return
        try:
            self._entries.put_nowait({"kind": kind, "time": _now()} | what)
        except queue.Full:
            self._dropped += 1

    # --- the thread that writes to the disk ---

    def _write(self) -> None:
        looked = time.monotonic()
        while True:
            is_over = self._closing.wait(SPOOL_SECONDS)
            entries = self._taken()
            if self._usage and (is_over or time.monotonic() - looked > USAGE_SECONDS):
                looked = time.monotonic()
                if values := self._usage.measured():
                    entries.append({"kind": "usage", "time": _now(), "step": self._step, "values": values})
            try:
                self._spool.append([kept for entry in entries if (kept := self._kept(entry))])
                if is_over:
                    self._spool.append(self._end)
                    self._spool.sync()
                    return
            except OSError as error:
                logger.warning("%s cannot be written (%s): MLflow lacks a part of this run", self._spool.folder, error)
                self._dropped += len(entries)
                if is_over:
                    return

    def _taken(self) -> list[Entry]:
        return [self._entries.get_nowait() for _ in range(self._entries.qsize())]

    def _kept(self, entry: Entry) -> Entry | None:
        """An entry whose files are in the spool; None if there is no such file."""
        try:
            if entry["kind"] == "status":  # a run begins, or goes on
                entry["tags"] = code_tags()
            elif entry["kind"] == "file":
                entry["file"] = self._spool.adopt(Path(entry["path"]))
            elif entry["kind"] == "model":
                paths = entry.pop("paths")
                entry["files"] = {inside: self._spool.adopt(Path(path)) for inside, path in paths.items()}
        except OSError as error:
            what = described(entry)
            logger.warning("MLflow lacks %s of this run (%s); the run is not affected", what, root_cause(error))
            return None
        return entry

    # --- the thread that sends ---

    def _send(self) -> None:
        pause, failures, was_late = 0.0, 0, False
        while not self._closing.wait(pause):
            is_sent = self._try()
            failures = 0 if is_sent else failures + 1
            pause = BATCH_SECONDS if is_sent else min(RETRY_SECONDS[0] * 2 ** (failures - 1), RETRY_SECONDS[1])
            was_late = not is_sent and self._closing.is_set()  # then there is no point in asking once more
        self._writing.join()
        if not was_late:
            self._try()
        if not self._is_abandoned and self._is_sent and not self._dropped:
            self._is_whole = True
            self._spool.remove()
        else:
            self._spool.release()

    def _try(self) -> bool:
        """Send what there is; false if the store does not answer."""
        try:
            run = self._sender.open()
            if self._run_id != run.run_id or not self._settled.is_set():
                self._run_id = run.run_id
                self._note(run_id=run.run_id)
            self._settled.set()
            self._sender.send(lambda: not self._is_abandoned)
            if self._closing.is_set() and not self._is_abandoned:
                self._sender.send_refused()  # a database was busy, say
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises must not reach the training
            self._fail(error)
            return False
        if self._cause:
            logger.info("MLflow at %s answers again", self._place)
            self._cause = ""
        self._is_sent = self._spool.is_empty()
        self._where = [f"MLflow: {self._place}", *run.where()]
        return True

    def _fail(self, error: BaseException) -> None:
        logger.debug("MLflow failed", exc_info=True)
        self._cause, self._is_sent = root_cause(error), False
        if isinstance(error, ImportError):
            self._cause = (
                f"a database needs the whole of MLflow, and here is mlflow-skinny: {error}; pip install "
                "'grndist[mlflow]', or give a server as tracking.uri"
            )
        self._settled.set()
        self._waits()

    def _waits(self) -> None:
        """Say, once, what is to be done about what MLflow does not have."""
        spool, run = self._spool.folder, self._spool.head.run
        refused = "; ".join(dict.fromkeys(self._sender.refusals.values()))
        cause = self._cause or refused or "the disk was too slow"
        self._where = [
            f"MLflow at {self._place} lacks a part of this run ({cause}); it waits in {spool}, and "
            f"`grndist tracking replay {run}` sends it"
        ]
        if not self._is_warned:
            self._is_warned = True
            logger.warning("%s. The run itself is not affected", self._where[0])


def _now() -> int:
    return int(time.time() * 1000)
