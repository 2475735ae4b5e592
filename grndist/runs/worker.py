"""Training as one of several workers, wherever they run and whoever started them.

The first one alone reads and writes the run directory. What it goes on from it sends to the others, so that they start
alike and need not see the same disk.
"""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from grndist.data.view import View
from grndist.runs.config import RunConfig
from grndist.runs.folder import metrics_file
from grndist.runs.learning import Learning, Rank, learning
from grndist.runs.mirror import mirrored
from grndist.runs.steps import Log, News, Stepping, keeping
from grndist.runs.train import cells_of
from grndist.runs.workplace import RunError, Workplace
from grndist.storage import is_remote, joined
from grndist.training import checkpoint
from grndist.training.distributed import Group
from grndist.workers import ALONE


@dataclass(frozen=True)
class Order:
    """What every worker is told; it can be sent to other machines."""

    config: RunConfig  # resolved
    token: str  # of the process that holds the run directory


@dataclass(frozen=True)
class Line:
    """How the first worker is in touch with whoever started it."""

    log: Log
    show: Callable[[News], None]
    say: Callable[[str], None]  # a line for people
    wants_stop: Callable[[], bool]


@dataclass(frozen=True)
class Outcome:
    """What the first worker says at the end."""

    cells_per_second: float
    losses: dict[str, float]
    stopped: bool  # because somebody wanted to


def work(order: Order, group: Group, line: Line) -> Outcome:
    """Train as one of `group`, from the last checkpoint to the end; only the first worker uses its `line`.

    Raises:
        UserError: as in one process.
    """
    config, rank = order.config, Rank(group.rank, group.count)
    torch.set_num_threads(_threads(config))
    started = time.monotonic()
    view, held_out = cells_of(config)
    learns = learning(config, view, held_out, rank)
    if rank.number == 0:
        return _as_the_first(order, view, learns, group, line, started)
    _start_alike(None, learns, group)
    stepping = Stepping(config, learns, group, _nothing, (), _nothing, lambda: False, started)
    stepping.go()
    return Outcome(stepping.rate, stepping.losses, stepping.stopped)


def _as_the_first(order: Order, view: View, learns: Learning, group: Group, line: Line, started: float) -> Outcome:
    config = order.config
    with _place(order) as place:
        _start_alike(place.folder / "checkpoints", learns, group)
        line.say(f"{_several(group.count)} from step {learns.state.step}: {'; '.join(learns.lines)}")
        with (
            metrics_file(place.folder, learns.state.step) as write,
            keeping(place, config, view, learns) as keeper,
        ):
            show = _counted(line.show, group.count)
            stepping = Stepping(
                config,
                learns,
                group if group.count > 1 else ALONE,
                keeper.save,
                (write, line.log),
                show,
                line.wants_stop,
                started,
            )
            stepping.go()
    return Outcome(stepping.rate, stepping.losses, stepping.stopped)


@contextmanager
def _place(order: Order) -> Iterator[Workplace]:
    """Where the first worker finds the run directory that another process holds for it.

    Raises:
        RunError: it is not on this machine.
    """
    run = joined(order.config.runs, order.config.name)
    if is_remote(run):
        with mirrored(run, resume=True, overwrite=False, token=order.token) as place:
            yield place
        return
    if not (Path(run) / "config.yaml").is_file():
        raise RunError(
            f"{run} is not on {socket.gethostname()}, where the first worker runs; put runs=... on storage that every "
            "node mounts at the same path, or give a URL"
        )
    yield Workplace(Path(run), run, lambda: None)


def _start_alike(checkpoints: Path | None, learns: Learning, group: Group) -> None:
    """Bring every worker to the newest of the first one's `checkpoints` or, without any, to its fresh state."""
    with tempfile.TemporaryDirectory(prefix="grndist-start-") as aside:
        folder, found = Path(aside), checkpoint.checkpoints(checkpoints) if checkpoints else []
        if found:
            path = found[-1]
        elif checkpoints:
            path = checkpoint.save(folder, learns.state, _fresh(learns))
        else:
            path = folder
        for name in checkpoint.FILES:
            content = group.broadcast((path / name).read_bytes() if checkpoints else None)
            if not checkpoints:
                (path / name).write_bytes(content)
        checkpoint.restore(path, learns.state)


def _fresh(learns: Learning) -> checkpoint.Description:
    return checkpoint.Description(0, {}, [], "", learns.regulators, list(learns.unmeasured))


def _counted(show: Callable[[News], None], count: int) -> Callable[[News], None]:
    return lambda news: show(News(news.step, news.loss, news.cells_per_second, f", {_several(count)}"))


def _several(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _threads(config: RunConfig) -> int:
    return config.training.threads or max(int(config.workers.cpus_per_worker if config.workers else 1), 1)


def _nothing(*news: object) -> None:
    pass
