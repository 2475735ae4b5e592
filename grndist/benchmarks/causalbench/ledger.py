"""The folder of a comparison: what is done of it, so that it can be interrupted at any moment.

OUT/causalbench.json        settings, digest of the data, MLflow's run
    cases/CASE.json         the curve of one case
    networks/CASE.parquet   its strongest edges
    runs/CASE/              its run directory, if it is trained; mlflow.db
    curves.parquet, scores.json, causalbench.png, summary.txt
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grndist.benchmarks.causalbench.case import Case, Outcome
from grndist.benchmarks.causalbench.config import CasesError, RegimesConfig
from grndist.benchmarks.causalbench.contenders import Contender
from grndist.config import Tree
from grndist.data.sources import source_digest
from grndist.evaluation.interventional.curves import MEASURES
from grndist.files import locked, write_whole
from grndist.networks.io import write_edges

ABOUT = "causalbench.json"
MAY_CHANGE = ("store", "models", "fractions", "seeds", "tracking")  # with --resume


@dataclass(frozen=True)
class Ledger:
    """The cases that are done."""

    folder: Path

    @property
    def runs(self) -> Path:
        """The run root."""
        return self.folder / "runs"

    def is_done(self, case: Case) -> bool:
        """Whether its numbers are there."""
        return self._file(case).is_file()

    def network(self, case: Case) -> Path:
        """Where its edges are."""
        return self.folder / "networks" / f"{case.name}.parquet"

    def keep(self, case: Case, outcome: Outcome) -> None:
        """Write what came of a case: its edges, then its numbers, by which it is known to be done.

        Raises:
            WriteError: the disk is full.
        """
        for file in (self.network(case), self._file(case)):
            file.parent.mkdir(parents=True, exist_ok=True)
        if len(outcome.edges):
            write_edges(outcome.edges, self.network(case), overwrite=True)
        about = {
            "model": case.contender.name, "fraction": case.fraction, "seed": case.seed,
            "trained_on": outcome.trained_on, "seconds": outcome.seconds, "seconds_scored": outcome.seconds_scored,
            "edges": len(outcome.edges), "reason": outcome.reason,
            "curve": json.loads(outcome.curve.to_json(orient="records", double_precision=15)),
        }  # fmt: skip
        _write(self._file(case), about)

    def read(self, case: Case) -> Tree:
        """What was kept of a case that is done."""
        return json.loads(self._file(case).read_text())

    def curve(self, case: Case) -> pd.DataFrame:
        """Its curve."""
        table = pd.DataFrame(self.read(case)["curve"])
        return table.astype(dict.fromkeys(MEASURES, np.float64))

    def about(self) -> Tree:
        """Settings and data."""
        return json.loads((self.folder / ABOUT).read_text())

    def note(self, **more: Any) -> None:
        """Add to the settings."""
        _write(self.folder / ABOUT, self.about() | more)

    def _file(self, case: Case) -> Path:
        return self.folder / "cases" / f"{case.name}.json"


@contextmanager
def opened(
    folder: Path, config: RegimesConfig, models: Sequence[Contender], digest: str, resume: bool
) -> Iterator[Ledger]:
    """Hold a comparison's folder, made anew or as it was left.

    Models, fractions and seeds may be others than before: what is done stays, and what is new is added.

    Raises:
        CasesError: it is there and should not be, or the other way round; it is of other settings or data.
        UserError: another process works on it.
    """
    is_there = refuse(folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"{folder} is in use by another process; wait for it, or give another --out"):
        before: Tree = json.loads((folder / ABOUT).read_text()) if is_there else {}
        own = {one.name: one.settings(config) for one in models}
        now = {"config": _portable(config), "models": own, "store_digest": digest}
        if is_there:
            _refuse_changes(folder, before, now)
        known = before.get("models", {})
        _write(folder / ABOUT, before | now | {"models": known | own})
        yield Ledger(folder)


def _portable(config: RegimesConfig) -> Tree:
    """The settings with the summary table by its content, wherever it is."""
    tree = config.model_dump(mode="json")
    summary = config.causalbench.summary
    if summary is not None:
        tree["causalbench"]["summary"] |= {"file": summary.file.name, "sha256": source_digest(summary.file)}
    return tree


def refuse(folder: Path, resume: bool) -> bool:
    """Raise unless a comparison may start or go on there; whether there is one.

    Raises:
        CasesError: it is there and should not be, or the other way round, or something else is there.
    """
    is_there = (folder / ABOUT).is_file()
    if is_there and not resume:
        raise CasesError(f"{folder} exists already; go on with --resume, or give another --out")
    if resume and not is_there:
        raise CasesError(f"{folder}: there is nothing to resume; leave out --resume to start it")
    if folder.exists() and not folder.is_dir():
        raise CasesError(f"{folder} is a file; give another --out")
    if folder.exists() and not is_there and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise CasesError(f"{folder} exists and is not of this command; give another --out")
    return is_there


def _refuse_changes(folder: Path, before: Tree, now: Tree) -> None:
    changed = [
        key for key, value in now["config"].items() if key not in MAY_CHANGE and before["config"].get(key) != value
    ]
    changed += [f"model {name}" for name, tree in now["models"].items() if before["models"].get(name, tree) != tree]
    if changed:
        raise CasesError(
            f"{folder}: --resume goes on with the settings that are there, but these differ: {', '.join(changed)}; "
            "give the old ones (models, fractions and seeds may be added), or another --out"
        )
    if before["store_digest"] != now["store_digest"]:
        raise CasesError(f"{folder}: the store is not the one that this was started on (its digest differs)")


def _write(file: Path, content: Any) -> None:
    write_whole(file, [json.dumps(content, indent=1).encode()])
