"""A cell of the benchmark: a method on a data set with a seed, computed once and kept as one file."""

import contextlib
import hashlib
import json
import logging
import os
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grndist import __version__
from grndist.benchmarks.comparison.config import BenchmarkConfig, run_settings
from grndist.benchmarks.comparison.datasets import Prepared, data_seed
from grndist.benchmarks.comparison.networks import Cell, is_seeded, network, view_of, why_not
from grndist.benchmarks.comparison.scores import Score, scores
from grndist.errors import UserError
from grndist.files import write_whole
from grndist.runs import Interrupted

Status = Literal["done", "failed", "not applicable"]


@dataclass(frozen=True)
class Outcome:
    """What came of a cell."""

    cell: Cell
    status: Status
    reason: str = ""
    scores: tuple[Score, ...] = ()
    seconds: float = 0.0  # of the network alone
    peak_gib: float = 0.0  # of the process that computed it, since it began


@dataclass(frozen=True)
class Plan:
    """All cells, and what is needed for any of them; it can be sent to another process."""

    config: BenchmarkConfig
    data: Mapping[tuple[str, int | None], Prepared]
    cells: tuple[Cell, ...]
    cpus: int = 1  # of each cell

    def prepared(self, cell: Cell) -> Prepared:
        """The data of a cell."""
        return self.data[cell.data_set, data_seed(self.config.data_sets[cell.data_set], cell.seed)]

    def has(self, cell: Cell) -> bool:
        """Whether the data of a cell are there."""
        return (cell.data_set, data_seed(self.config.data_sets[cell.data_set], cell.seed)) in self.data

    def file(self, cell: Cell) -> Path:
        """Where its outcome is kept."""
        return self.config.out / "cells" / cell.data_set / cell.method / f"seed{cell.seed}.json"

    def settings(self, cell: Cell) -> str:
        """A digest of all that its outcome depends on."""
        asked = self.config.methods[cell.method]
        found: dict[str, Any] = {"data": self.prepared(cell).digest, "skip": asked.skip.get(cell.data_set)}
        if asked.baseline is not None:
            found["baseline"] = asked.baseline
        else:
            run = run_settings(self.config, cell.method, cell.data_set, cell.seed, "S", Path("/"), self.config.out)
            found["run"] = run.model_dump(mode="json", exclude={"store", "runs", "name"})
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def cells_of(config: BenchmarkConfig) -> tuple[Cell, ...]:
    """Every cell: the first seed of everything before the second of anything.

    A method without a seed is asked once where the data are the same for all seeds.
    """
    return tuple(
        Cell(data_set, method, seed)
        for seed in config.seeds
        for data_set, data in config.data_sets.items()
        for method in config.methods
        if seed == config.seeds[0] or data.by_seed or is_seeded(config, method)
    )


def run_cell(plan: Plan, number: int) -> Outcome:
    """Compute a cell and keep it; a mistake of the user's or a training that diverges is an outcome, too.

    Raises:
        Interrupted: a signal has come.
    """
    cell = plan.cells[number]
    with _quiet():
        outcome = _outcome(plan, cell)
    file = plan.file(cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, [_as_json(outcome, plan.settings(cell)).encode()])
    return outcome


def _outcome(plan: Plan, cell: Cell) -> Outcome:
    started, seconds = time.monotonic(), 0.0
    try:
        prepared = plan.prepared(cell)
        view = view_of(plan.config, cell.data_set, prepared)
        reason = why_not(plan.config, cell, view)
        if reason:
            return Outcome(cell, "not applicable", reason)
        edges = network(plan.config, cell, prepared, view, plan.cpus)
        seconds = time.monotonic() - started
        found = scores(plan.config.data_sets[cell.data_set], prepared, view, edges)
    except Interrupted:
        raise
    except UserError as error:
        return Outcome(cell, "failed", str(error), (), time.monotonic() - started, _peak())
    return Outcome(cell, "done", "", tuple(found), seconds, _peak())


def _peak() -> float:
    """GiB of this process and of those it has started."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in whose) / 2**20


def _as_json(outcome: Outcome, settings: str) -> str:
    cell = outcome.cell
    tree = {
        "data_set": cell.data_set, "method": cell.method, "seed": cell.seed, "settings": settings,
        "version": __version__, "status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds,
        "peak_gib": outcome.peak_gib, "scores": [score.as_dict() for score in outcome.scores],
    }  # fmt: skip
    return json.dumps(tree, indent=1) + "\n"


def kept(plan: Plan, cell: Cell) -> Outcome | None:
    """The outcome that was kept of a cell; None where there is none, or one of other settings.

    Raises:
        UserError: its file is damaged.
    """
    file = plan.file(cell)
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        if tree["settings"] != plan.settings(cell):
            return None
        found = tuple(Score(**score) for score in tree["scores"])
        return Outcome(cell, tree["status"], tree["reason"], found, tree["seconds"], tree["peak_gib"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it, and the same command computes it again") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no news of what is inside a cell: the benchmark has a bar of its own."""
    logger = logging.getLogger("grndist")
    level = logger.level
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
