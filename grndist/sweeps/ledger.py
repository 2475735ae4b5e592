"""The folder of a sweep: what has been tried and what came of it, so that a sweep can be interrupted at any moment.

    SWEEP/sweep.json           settings, digest of the data, MLflow's run
          sessions.json        when somebody worked on it
          trials/0007.json     settings, looks, results of one trial
          trials/0007/seed-0/  a run directory of each replicate
          confirmed.json       the best setting and the run's own on fresh seeds
          trials.parquet, *.png, summary.txt

A trial's file is written by the trial's own process, or, before it begins and after it was ended, by the sweep's. Every
file is written aside and renamed.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from grndist.config import Tree
from grndist.errors import UserError
from grndist.files import locked, write_whole
from grndist.sweeps.config import Sweep
from grndist.sweeps.space import Settings

Status = Literal["running", "finished", "stopped", "failed"]
Values = dict[str, list[float]]  # of every objective, one of each replicate


class SweepError(UserError):
    """The folder of a sweep cannot be used as asked."""


@dataclass(frozen=True)
class Look:
    """What a trial was worth on the way."""

    part: float  # of its training
    values: Values


@dataclass(frozen=True)
class Trial:
    """One trial, as far as it has come."""

    number: int
    settings: Settings
    status: Status = "running"
    looks: list[Look] = field(default_factory=list)
    ended: float = math.nan  # time of day, in seconds since 1970
    error: str = ""
    donor: int | None = None  # the trial whose weights it is to go on from, in a population

    @property
    def values(self) -> Values:
        """Of the last look."""
        return self.looks[-1].values if self.looks else {}

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status != "running"

    def mean(self, objective: str) -> float:
        """Of the replicates; NaN where it has not been measured."""
        values = self.values.get(objective, [])
        return sum(values) / len(values) if values else math.nan


class Ledger:
    """The trials of a sweep on disk."""

    def __init__(self, folder: Path):
        self.folder = folder

    def trials(self) -> list[Trial]:
        """All that have been begun, by number."""
        files = sorted((self.folder / "trials").glob("[0-9]*.json"))
        return [_trial_of(json.loads(file.read_text())) for file in files]

    def trial(self, number: int) -> Trial:
        """One that has been begun."""
        return _trial_of(json.loads(self._file(number).read_text()))

    def write(self, trial: Trial) -> None:
        """Keep what is known of a trial.

        Raises:
            WriteError: the disk is full.
        """
        self._file(trial.number).parent.mkdir(parents=True, exist_ok=True)
        _write(self._file(trial.number), asdict(trial))

    def end(self, number: int, status: Status, error: str = "") -> None:
        """Set how a trial has ended, unless that is known already."""
        trial = self.trial(number)
        if not trial.is_over:
            self.write(replace(trial, status=status, error=error, ended=time.time()))

    def runs(self, number: int) -> Path:
        """The folder of a trial's run directories."""
        return self.folder / "trials" / f"{number:04d}"

    def _file(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}.json"

    def read(self, name: str) -> Any:
        """What was written under that name; None if nothing was."""
        file = self.folder / name
        return json.loads(file.read_text()) if file.is_file() else None

    def keep(self, name: str, content: Any) -> None:
        """Write something else of the sweep as JSON."""
        _write(self.folder / name, content)

    def seconds_used(self) -> float:
        """Of all sessions, up to their last sign of life."""
        return sum((last - first for first, last in self.read("sessions.json") or []), 0.0)

    def since_start(self, moment: float) -> float:
        """A time of day as seconds since the sweep began, pauses between sessions left out."""
        sessions = self.read("sessions.json") or []
        return sum((min(max(moment - first, 0.0), last - first) for first, last in sessions), 0.0)

    def begin_session(self) -> None:
        """Somebody works on it from now on."""
        self.keep("sessions.json", [*(self.read("sessions.json") or []), [time.time(), time.time()]])

    def sign_of_life(self) -> None:
        """Somebody still does."""
        *before, (first, _) = self.read("sessions.json")
        self.keep("sessions.json", [*before, [first, time.time()]])


@contextmanager
def opened(sweep: Sweep, digest: str, resume: bool) -> Iterator[Ledger]:
    """Hold a sweep's folder for this process alone, made anew or as it was left.

    Raises:
        SweepError: it is there and should not be, or the other way round; it is of other settings or data.
        UserError: another process works on it.
    """
    folder = sweep.folder
    is_there = (folder / "sweep.json").is_file()
    if is_there and not resume:
        raise SweepError(f"{folder} exists already; go on with --resume, or give another name=...")
    if resume and not is_there:
        raise SweepError(f"{folder}: there is no sweep to resume; leave out --resume to start it")
    if folder.exists() and not is_there and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise SweepError(f"{folder} exists and is not the folder of a sweep; give another name=... or sweeps=...")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"{folder} is in use by another process; wait for it, or give another name=..."):
        ledger = Ledger(folder)
        about = {"config": _of_search(sweep), "base": _of_run(sweep), "store_digest": digest}
        if is_there:
            _refuse_changes(folder, ledger.read("sweep.json"), about)
        ledger.keep("sweep.json", (ledger.read("sweep.json") or {}) | about)
        yield ledger


def _of_search(sweep: Sweep) -> Tree:
    """The settings that decide which trials there are and what they are worth; a budget may grow."""
    return sweep.config.model_dump(mode="json", exclude={"budget", "trial", "address", "run", "sweeps", "confirm"})


def _of_run(sweep: Sweep) -> Tree:
    return sweep.base.model_dump(mode="json", exclude={"name", "runs", "store", "tracking", "workers"})


def _refuse_changes(folder: Path, before: Tree, now: Tree) -> None:
    for part, where in (("config", "the sweep file"), ("base", "the run file")):
        changed = sorted(key for key in now[part] | before[part] if _plain(now[part].get(key)) != before[part].get(key))
        if changed:
            raise SweepError(
                f"{folder}: --resume goes on with the sweep's own settings, but {where} differs in "
                f"{', '.join(changed)}; give the old values (budget, trial, confirm and address may change), or start "
                "another with name=..."
            )
    if before["store_digest"] != now["store_digest"]:
        raise SweepError(f"{folder}: the store is not the one that this sweep was started on (its digest differs)")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _trial_of(tree: Mapping[str, Any]) -> Trial:
    return Trial(**{**tree, "looks": [Look(**look) for look in tree["looks"]]})


def _write(file: Path, content: Any) -> None:
    write_whole(file, [json.dumps(content, indent=1).encode()])
