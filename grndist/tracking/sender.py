"""From a spool to MLflow: in order, each entry once however often it is tried; the one place that writes to a run.

The same while a run goes on and when it is replayed later. Everything here blocks.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from grndist.tracking.keys import flat, metric_key, shortened
from grndist.tracking.mlflow_run import Point, Run
from grndist.tracking.opening import open_run, remove_twins
from grndist.tracking.spool import Entry, Placed, Spool

POINTS_AT_ONCE = 1000

COUNTED = {"settings": "settings", "file": "files", "table": "tables", "scores": "scores", "model": "models"}
ARRIVED = ("values", *COUNTED.values())

logger = logging.getLogger(__name__)


class Sender:
    """Sends what is in a spool. If it cannot, it can be asked again."""

    def __init__(self, spool: Spool):
        self.spool = spool
        self.run: Run | None = None
        self._history: History | None = None  # None: nothing that is sent can be there already
        self._is_in_doubt = False  # whether a run may have been made whose id has not come back
        self.refusals: dict[str, str] = {}  # what the store did not take, and why
        self.arrived: Counter[str] = Counter()  # what has been sent, by what it is

    def open(self) -> Run:
        """The run in MLflow, found or made.

        Raises:
            Exception: MLflow's, if the store does not answer.
        """
        if self.run is None:
            was_in_doubt, self._is_in_doubt = self._is_in_doubt, True
            self.run = open_run(self.spool.head)
            self._is_in_doubt = was_in_doubt
            if self.run.is_known or self.spool.is_continued:
                self._history = History(self.run)
            self.spool.remember(self.run.run_id)
        return self.run

    def send(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Send what has not been sent, until `goes_on` says no; what the store refuses is noted and passed over.

        Raises:
            Exception: MLflow's, if the store does not answer (any more).
        """
        run, sent = self.open(), self.spool.sent
        for group in _groups(self.spool.entries(sent.upto)):
            if not goes_on():
                return
            if not self._is_taken(run, group):
                sent.refused += [placed.start for placed in group]
            sent.upto = group[-1].end
            self.spool.save_sent()

    def send_refused(self) -> None:
        """Try again what the store has refused before.

        Raises:
            Exception: MLflow's, if the store does not answer (any more).
        """
        run, sent = self.open(), self.spool.sent
        for start in list(sent.refused):
            placed = next(self.spool.entries(start))
            if self._is_taken(run, [placed]):
                sent.refused.remove(start)
                self.spool.save_sent()

    def send_points(self, points: Iterable[tuple[int, int, dict[str, float]]]) -> None:
        """Send those of a run's numbers (step, milliseconds, values) whose step MLflow does not have.

        Raises:
            Exception: MLflow's.
        """
        run = self.open()
        history = self._history or History(run)
        rows = [point for step, time, values in points for point in _points(step, time, values)]
        missing = history.missing(rows, once=True)
        run.log_metrics(missing)
        history.add(missing)
        self.arrived.update({"values": len(missing)})

    def _is_taken(self, run: Run, group: list[Placed]) -> bool:
        """Write it, or warn; raises only if the store does not answer at all."""
        first = group[0]
        for last_try in (False, True):
            try:
                self._write(run, group)
            except Exception as error:  # noqa: BLE001 - such as a full disk or no access where MLflow keeps its files
                self._history = History(run)  # it may have arrived nevertheless
                self.run = None
                run.check()
                self.run = run
                if last_try:
                    self._refused(described(first.entry), root_cause(error))
            else:
                self.refusals.pop(described(first.entry), None)
                if first.entry["kind"] in COUNTED:
                    self.arrived.update({COUNTED[first.entry["kind"]]: 1})
                return True
        return False

    def _refused(self, what: str, cause: str) -> None:
        is_new, self.refusals[what] = what not in self.refusals, cause
        if is_new:
            logger.warning("MLflow lacks %s of this run (%s); the run is not affected", what, cause)

    def _write(self, run: Run, group: list[Placed]) -> None:
        entry = group[0].entry
        kind = entry["kind"]
        if kind in ("metrics", "usage"):
            self._write_points(run, (placed.entry for placed in group))
        elif kind == "settings":
            run.log_settings(entry["tree"])
        elif kind == "dataset":
            run.log_dataset(entry["name"], entry["digest"], entry["uri"])
        elif kind == "file":
            run.log_file(self.spool.folder / entry["file"], entry["folder"])
        elif kind == "table":
            run.log_table(entry["table"], entry["name"])
        elif kind == "scores":
            numbers = {key: value for key, value in flat(entry["tree"]).items() if type(value) in {int, float}}
            self._write_points(run, [entry | {"step": 0, "values": numbers}])
            run.log_text(json.dumps(entry["tree"], indent=2), "scores.json")
        elif kind == "model":
            self._write_model(run, group[0])
        elif kind == "status":
            if "tags" in entry:
                run.set_tags(entry["tags"])
            run.set_status(entry["status"], entry["time"])
            if entry["status"] != "RUNNING" and self._is_in_doubt:
                remove_twins(run, self.spool.head)

    def _write_points(self, run: Run, entries: Iterable[Entry]) -> None:
        for once, points in _by_kind(entries):
            missing = self._history.missing(points, once) if self._history else points
            run.log_metrics(missing)
            self.arrived.update({"values": len(missing)})
            if self._history:
                self._history.add(missing)

    def _write_model(self, run: Run, placed: Placed) -> None:
        """What an earlier try has left half-done is deleted; what it has finished stands."""
        entry, tries = placed.entry, self.spool.sent.models
        before = tries.get(str(placed.start))
        models = run.models()
        if before is None:
            tries[str(placed.start)] = list(models)
            self.spool.save_sent()
        for model_id, is_whole in models.items():
            if before is not None and model_id not in before:
                if is_whole and not entry["registered"]:
                    return
                run.delete_model(model_id)
        files = {inside: self.spool.folder / file for inside, file in entry["files"].items()}
        run.log_model(files, entry["name"], entry["registered"])


class History:
    """Which points of its metrics a run in MLflow has; asked for when a metric is first met."""

    def __init__(self, run: Run):
        self._run = run
        self._known: dict[str, tuple[set[int], set[tuple[int, int]]]] = {}

    def missing(self, points: list[Point], once: bool) -> list[Point]:
        """Those it does not have. With `once` a metric has one value at a step, else one at a step and time."""
        found = []
        for point in points:
            steps, times = self._of(point.key)
            if (point.step not in steps) if once else ((point.step, point.time) not in times):
                found.append(point)
        return found

    def add(self, points: list[Point]) -> None:
        """Note that it has these."""
        for point in points:
            steps, times = self._of(point.key)
            steps.add(point.step)
            times.add((point.step, point.time))

    def _of(self, key: str) -> tuple[set[int], set[tuple[int, int]]]:
        if key not in self._known:
            points = self._run.points(key)
            self._known[key] = {point.step for point in points}, {(point.step, point.time) for point in points}
        return self._known[key]


def root_cause(error: BaseException) -> str:
    """The innermost of the chained errors, one line: "ConnectionRefusedError: [Errno 111] Connection refused"."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()), 400)


def described(entry: Entry) -> str:
    """What an entry is called in a warning."""
    kind = entry["kind"]
    if kind == "file":
        return str(entry["path"])
    names = {"settings": "the settings", "dataset": "the store's digest", "model": "the model", "status": "the status"}
    return names.get(kind, {"scores": "scores.json", "table": entry.get("name", "")}.get(kind, "numbers"))


def _groups(placed: Iterator[Placed]) -> Iterator[list[Placed]]:
    """Entries with numbers together, any other alone."""
    group: list[Placed] = []
    size = 0
    for one in placed:
        is_numbers = one.entry["kind"] in ("metrics", "usage")
        if group and (not is_numbers or size >= POINTS_AT_ONCE):
            yield group
            group, size = [], 0
        if is_numbers:
            group.append(one)
            size += len(one.entry["values"])
        else:
            yield [one]
    if group:
        yield group


def _by_kind(entries: Iterable[Entry]) -> Iterator[tuple[bool, list[Point]]]:
    """Points that a metric has once at a step, then those that may be measured again."""
    found: dict[bool, list[Point]] = {True: [], False: []}
    for entry in entries:
        found[entry["kind"] == "metrics"] += _points(entry["step"], entry["time"], entry["values"])
    return ((once, points) for once, points in found.items() if points)


def _points(step: int, time: int, values: dict[str, Any]) -> list[Point]:
    return [Point(metric_key(name), float(value), time, step) for name, value in values.items()]
